"""The round-trip probe's jobs: inbound with a look at the edge, and outbound."""

from collections.abc import Iterator
from datetime import timedelta

from components.jobs.job import Container, Job, Mount, SecretFiles, option, python
from components.listeners import IMAPS, LISTENERS, SUBMISSION
from components.settings.jobs import PROBE_MINUTES, Probe, probe_recipient, probe_sender
from components.settings.schedule import Schedule
from components.settings.site import Site

INBOUND = "email-roundtrip-monitor"
OUTBOUND = "email-outbound-monitor"
API_VARIABLE = "BREVO_API_KEY"
MAILBOX_VARIABLE = "EMAIL_MONITOR_IMAP_PASSWORD"
HEARTBEATS_DIR = "/heartbeats"

# 15 looks 20 seconds apart take 5 minutes; with a slow server each takes up to 80 seconds more, so the program stops by itself.
DEADLINE = timedelta(minutes=PROBE_MINUTES)
REPORT_SECONDS = 240  # for the API, the last look and the reports


def other_mx(site: Site) -> list[str]:
    """Every MX of the settings but the mail server itself."""
    return sorted({host for domain in site.domains.values() for host in domain.dns.mx} - {site.hostname})


def probe_jobs(site: Site) -> Iterator[Job]:
    probe = site.jobs.probe
    if probe is None:
        return
    edge = [f"{s.name}:{s.port}:{s.tls}" for s in LISTENERS] if probe.edge else []
    inbound = (
        *option("recipient", probe_recipient(probe, site.primary)),
        *option("sender", probe_sender(probe, site.primary)),
        *option("api", probe.api),
        *(argument for entry in edge for argument in ("--edge", entry)),
        *(argument for host in (other_mx(site) if probe.edge else ()) for argument in ("--mx", host)),
    )
    password = {MAILBOX_VARIABLE: probe.credentials.password}
    api_key = {API_VARIABLE: probe.credentials.api_key}
    yield _job(site, INBOUND, probe.schedule, ("inbound", *inbound), probe=probe, keys=api_key | password)
    if probe.outbound:
        outbound = ("outbound", "--recipient", probe.outbound.recipient, "--sender", probe.mailbox)
        yield _job(site, OUTBOUND, probe.outbound.schedule, outbound, probe=probe, keys=password)


def _job(site: Site, name: str, schedule: Schedule, arguments: tuple[str, ...], *, probe: Probe, keys: dict[str, str]) -> Job:
    """`keys`: variable of the script to key of the Secret."""
    # A heartbeat says that mail comes in; whether it also gets out has metrics of its own.
    heartbeats = site.jobs.heartbeats if name == INBOUND else None
    relays = [f"{relay.name}={address}" for relay in site.mail.trusted_relays for address in relay.addresses]
    return Job(
        name=name,
        schedule=schedule,
        deadline=DEADLINE,
        containers=(
            Container(
                name="probe",
                image=site.jobs.python_image,
                command=python(
                    "probe.py",
                    *arguments,
                    *("--job", name, "--name", site.hostname, "--address", site.in_cluster_host, "--mailbox", probe.mailbox),
                    *("--imap-port", str(IMAPS.port), "--submission-port", str(SUBMISSION.port)),
                    *("--deadline", str(int(DEADLINE.total_seconds()) - REPORT_SECONDS)),
                    *(argument for relay in relays for argument in ("--relay", relay)),
                    *option("pushgateway", site.jobs.pushgateway),
                    *option("heartbeats", HEARTBEATS_DIR if heartbeats else None),
                ),
                credentials={variable: (probe.credentials.name, key) for variable, key in keys.items()},
                mounts=(Mount("heartbeats", HEARTBEATS_DIR),) if heartbeats else (),
            ),
        ),
        volumes={"heartbeats": SecretFiles(heartbeats.name)} if heartbeats else {},
    )
