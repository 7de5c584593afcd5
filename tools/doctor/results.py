"""What the jobs last told the Pushgateway, and the second MX that holds mail while the first is away."""

import smtplib
import time
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from components.jobs.bounds import all_jobs, overdue
from components.jobs.probe import other_mx
from components.listeners import SMTP
from tools.doctor.check import Seen, blind, broken, degraded, ok, unused
from tools.doctor.dns import ask, resolver
from tools.doctor.edge import NAME, Smtp
from tools.doctor.fetch import fetch
from tools.doctor.jobs import AREA
from tools.doctor.patient import Patient, UnreachedError

# Metrics that are 1 when all is well, and what 0 means.
WELL = {
    "email_roundtrip_success": "the last probe message did not arrive",
    "email_outbound_success": "the last outbound probe did not come back",
    "backup_success": "the last backup failed",
    "backup_verified": "a part of the repository cannot be read back",
    "mail_restore_success": "the last restore drill failed",
}


@AREA.check(
    "results",
    expects="every job reported lately, and that all is well",
    remedy="`make job JOB=<name>` runs it now and shows its log; docs/runbooks/alerts.md says what each result means",
    page="runbooks/alerts.md",
)
def results(patient: Patient) -> Iterator[Seen]:
    """The last results in the Pushgateway: probe, backup with its read-back, restore drill."""
    gateway = patient.site.jobs.pushgateway
    if gateway is None:
        yield unused("jobs.pushgateway")
        return
    families = text_string_to_metric_families(fetch(patient, f"{gateway}/metrics"))
    held = [sample for family in families for sample in family.samples]
    for job in all_jobs(patient.site):
        if job.suspended:
            continue
        own = [sample for sample in held if sample.labels.get("job") == job.name]
        pushed = [sample.value for sample in own if sample.name == "push_time_seconds"]
        if not pushed:
            yield degraded(job.name, "has not reported since the Pushgateway started")
            continue
        age, bound = time.time() - pushed[0], overdue(job.name, job.schedule)
        faults = [WELL[sample.name] for sample in own if sample.name in WELL and sample.value == 0]
        faults += [f"verdict {sample.labels['verdict']}" for sample in own if sample.name.endswith("_verdict") and sample.value and faults]
        if age > bound:
            faults.append(f"last report {age / 3600:.1f} h ago, bound {bound / 3600:.1f} h")
        yield broken(job.name, "; ".join(faults)) if faults else ok(job.name, f"reported {age / 3600:.1f} h ago")


@AREA.check(
    "second-mx",
    expects="a second MX greets, takes mail for our domains and refuses all other",
    remedy="log in there: `postfix status`, its relay_domains and its firewall",
    page="runbooks/alerts.md#backupmxdown",
)
def second_mx(patient: Patient) -> Iterator[Seen]:
    """Every other host in our MX records: its greeting, a recipient of ours, a recipient elsewhere. Nothing is sent."""
    internet = resolver(patient, patient.resolvers[0])
    hosts = other_mx(patient.site)
    if not hosts:
        yield unused("domains.<domain>.dns.mx with another host")
    for host in hosts:
        domains = [name for name, domain in patient.site.domains.items() if host in domain.dns.mx]
        addresses = sorted(ask(internet, host, "A") | ask(internet, host, "AAAA"))
        if not addresses:
            yield broken(host, "has no address")
        for address in addresses:
            about = f"{host} {address}"
            try:
                yield from _second_mx(patient, host, address, domains)
            except UnreachedError as error:
                # Many networks let no connection to port 25 out, which says nothing about the other end.
                yield (broken if patient.outside else blind)(about, f"{error}{'' if patient.outside else ', seen from here'}")
            except (OSError, smtplib.SMTPException) as error:
                yield broken(about, f"{type(error).__name__}: {error}")


def _second_mx(patient: Patient, host: str, address: str, domains: list[str]) -> Iterator[Seen]:
    about = f"{host} {address}"
    with Smtp(patient, host, address, SMTP.port) as session:
        session.ehlo(NAME)
        session.mail("")  # as a bounce: no sender whose domain would be looked up
        refused = {}
        for domain in domains:
            code, said = session.rcpt(f"postmaster@{domain}")
            if code >= 400:
                refused[domain] = f"{code} {said.decode('ascii', 'replace')}"[:120]
        code, _ = session.rcpt("doctor@other.invalid")
    if code < 400:
        yield broken(about, "takes mail for any domain: an open relay")
    elif refused:
        yield broken(about, "; ".join(f"refuses mail for {domain}: {said}" for domain, said in refused.items()))
    else:
        yield ok(about, f"takes {', '.join(domains)}, refuses others")
