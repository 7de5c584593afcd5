"""Rules for transport security: MTA-STS, its policy and its host, and TLSRPT."""

from collections.abc import Iterator

from checkdmarc.mta_sts import MTASTSError, mx_in_mta_sts_patterns, parse_mta_sts_policy, parse_mta_sts_record
from checkdmarc.smtp_tls_reporting import SMTPTLSReportingError, parse_smtp_tls_reporting_record

from components.checks.dns.auth import texts
from components.checks.dns.view import Finding, View, error, warning
from components.dns.mta_sts import POLICY_HOST, policy_id, policy_text
from components.dns.web_pages import served
from components.settings.types import Fqdn

DAY = 86_400
ENFORCE_MIN_AGE = 14 * DAY  # a policy that is forgotten sooner protects nobody who writes once a fortnight
WATCH_DAYS = 28  # four weeks of reports see the monthly senders once


def mta_sts(view: View) -> Iterator[Finding]:
    for domain, settings in view.site.domains.items():
        where, source = f"_mta-sts.{domain} TXT (MTA-STS)", "RFC 8461"
        found = texts(view, f"_mta-sts.{domain}", "v=stsv1")
        if len(found) > 1:
            yield error(where, f"{len(found)} records; senders then act as if there were none, keep one", f"{source} section 3.1")
            continue
        if settings.dns.mta_sts is None:
            if found:
                yield error(where, "announces a policy that nothing serves; set mta_sts, or remove the record", f"{source} section 3.3")
            continue
        if not found:
            yield error(where, "is missing, so nobody looks for the policy", f"{source} section 3.1")
            continue
        try:
            announced = parse_mta_sts_record(found[0])["tags"]["id"]
        except MTASTSError as problem:
            yield error(where, str(problem), f"{source} section 3.1")
            continue
        if announced != policy_id(view.site, domain):
            yield error(
                where,
                f"id={announced} is not that of the policy, {policy_id(view.site, domain)}; senders keep an old policy until it does",
                f"{source} section 3.1",
            )
        yield from _policy(view, domain)
        yield from _host(view, domain, where)


def _policy(view: View, domain: Fqdn) -> Iterator[Finding]:
    settings, where, source = view.site.domains[domain].dns.mta_sts, f"{domain} MTA-STS policy", "RFC 8461"
    if settings is None:
        return
    try:
        parsed = parse_mta_sts_policy(policy_text(view.site, domain))
    except MTASTSError as problem:
        yield error(where, str(problem), f"{source} section 3.2")
        return
    yield from (warning(where, text, f"{source} section 3.2") for text in parsed["warnings"])
    patterns = list(parsed["policy"].get("mx", []))
    for record in view.at(domain, "MX"):
        if not mx_in_mta_sts_patterns(record.content, patterns):
            yield error(
                where, f"does not name {record.content}, an MX of the domain; senders would not deliver there", f"{source} section 4.1"
            )
    if settings.mode != "none" and settings.max_age < DAY:
        yield error(
            where, f"max_age of {settings.max_age} s protects nobody; a day at least, weeks once it is enforced", f"{source} section 3.2"
        )
    elif settings.mode == "enforce" and settings.max_age < ENFORCE_MIN_AGE:
        yield warning(
            where, f"max_age of {settings.max_age // DAY} days is short for enforce; set two weeks or more", f"{source} section 10.2"
        )
    if settings.mode == "enforce":
        yield from _watched(view, domain)
        ours = {view.site.host(name) for name in view.site.domains}
        for host in (record.content for record in view.at(domain, "MX") if record.content not in ours):
            yield warning(
                where,
                f"{host} is served elsewhere; without a certificate for that very name it gets no mail any more",
                f"{source} section 4.2",
            )


def _watched(view: View, domain: Fqdn) -> Iterator[Finding]:
    """Enforcing by surprise loses mail: an MX with a wrong certificate is then no MX."""
    settings, where = view.site.domains[domain].dns.mta_sts, f"{domain} MTA-STS policy"
    since = settings.testing_since if settings else None
    advice = f"publish `testing`, read the TLS reports for {WATCH_DAYS} days, and say so in mta_sts.testing_since"
    if since is None:
        yield error(where, f"enforce was not tried out; {advice}", "RFC 8461 section 8.2")
    elif (watched := (view.today - since).days) < WATCH_DAYS:
        yield error(where, f"testing was watched for {watched} days only; {advice}", "RFC 8461 section 8.2")
    if not view.site.domains[domain].dns.tls_reports:
        yield error(where, "enforce without TLS reports would fail unseen; set tls_reports", "RFC 8460 section 3")


def _host(view: View, domain: Fqdn, where: str) -> Iterator[Finding]:
    host = f"{POLICY_HOST}.{domain}"
    if not any(record.type in {"A", "AAAA", "CNAME"} for record in view.by_name.get(host, ())):
        yield error(where, f"{host} has no address, so the policy cannot be fetched; set dns.web", "RFC 8461 section 3.3")


def certificates(view: View) -> Iterator[Finding]:
    """The hosts of the policy server have a certificate that is theirs."""
    for host, certificate in served(view.site).items():
        if not certificate.covers(host):
            yield error(
                host,
                f"no name in the certificate of Secret {certificate.secret} covers it; list the certificate's names, or set cluster_issuer",
                "RFC 8461 section 3.3",
            )


def tls_reports(view: View) -> Iterator[Finding]:
    for domain in view.site.domains:
        where, source = f"_smtp._tls.{domain} TXT (TLSRPT)", "RFC 8460 section 3"
        found = texts(view, f"_smtp._tls.{domain}", "v=tlsrptv1")
        if len(found) > 1:
            yield error(where, f"{len(found)} records; reporters then send nothing, keep one", source)
        elif found:
            try:
                parsed = parse_smtp_tls_reporting_record(found[0])
            except SMTPTLSReportingError as problem:
                yield error(where, str(problem), source)
            else:
                yield from (warning(where, text, source) for text in parsed["warnings"])
        elif view.site.domains[domain].dns.mta_sts:
            yield warning(where, "is missing, so nobody tells you what MTA-STS breaks; set tls_reports", source)
