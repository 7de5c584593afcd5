"""Rules for reports: TLSRPT, and the mailboxes that reports go to."""

from collections.abc import Iterator

from checkdmarc.smtp_tls_reporting import ParsedSMTPTLSReportingRecord, SMTPTLSReportingError, parse_smtp_tls_reporting_record

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.dns.content import txt_value
from components.settings.types import Fqdn, domain_of

AREA = Area[View]("reports", "reports of TLS and DMARC, and who gets them")


def _label(domain: Fqdn) -> str:
    return f"_smtp._tls.{domain} TXT (TLSRPT)"


def _texts(view: View, domain: Fqdn) -> list[str]:
    return view.texts(f"_smtp._tls.{domain}", "v=tlsrptv1")


def _verdicts(view: View) -> Iterator[tuple[str, ParsedSMTPTLSReportingRecord | SMTPTLSReportingError]]:
    for domain in view.site.domains:
        if len(texts := _texts(view, domain)) == 1:
            try:
                yield _label(domain), parse_smtp_tls_reporting_record(texts[0])
            except SMTPTLSReportingError as problem:
                yield _label(domain), problem


@AREA.error("several-tls-records", remedy="keep one", source="RFC 8460 section 3")
def several_tls_records(view: View) -> Found:
    """Reporters ignore all of several records."""
    for domain in view.site.domains:
        if (found := len(_texts(view, domain))) > 1:
            yield _label(domain), f"{found} records; reporters then send nothing"


@AREA.error("invalid-tls-record", remedy="correct it", source="RFC 8460 section 3")
def invalid_tls_record(view: View) -> Found:
    """A record that does not parse."""
    for label, verdict in _verdicts(view):
        if isinstance(verdict, SMTPTLSReportingError):
            yield label, str(verdict)


@AREA.warning("dubious-tls-record", source="RFC 8460 section 3")
def dubious_tls_record(view: View) -> Found:
    """What checkdmarc advises about a valid record."""
    for label, verdict in _verdicts(view):
        if not isinstance(verdict, SMTPTLSReportingError):
            yield from ((label, text) for text in verdict["warnings"])


@AREA.warning("no-tls-record", remedy="set tls_reports", source="RFC 8460 section 3")
def no_tls_record(view: View) -> Found:
    """Senders that cannot deliver because of MTA-STS report it only where they are asked to."""
    for domain, settings in view.site.domains.items():
        if settings.dns.mta_sts and not _texts(view, domain):
            yield _label(domain), "is missing, so mail that MTA-STS holds back is not reported"


def _own_addresses(view: View) -> Iterator[tuple[str, str]]:
    """Each address in our domains that a record asks reports to, once, after the setting that makes the record."""
    asked: dict[str, str] = {}
    for record in view.records:
        if record.type != "TXT" or not record.name.startswith(("_dmarc.", "_smtp._tls.")):
            continue
        for tag in txt_value(record.content).split(";"):
            name, _, value = tag.strip().partition("=")
            if name in {"rua", "ruf"}:
                uris = (uri.strip() for uri in value.split(","))
                found = (uri.removeprefix("mailto:").lower() for uri in uris if uri.startswith("mailto:"))
                asked = {address: f"{record.setting}: {address}" if record.setting else address for address in found} | asked
    return ((label, address) for address, label in asked.items() if domain_of(address) in view.site.domains)


def _destinations(view: View, address: str) -> list[str]:
    """The mailboxes in which mail to `address` ends, as Postfix follows its aliases."""
    mail, found, waiting, seen = view.site.mail, [], [address], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        targets = mail.aliases.get(current)
        if targets is None and current not in mail.mailboxes:
            targets = mail.aliases.get(f"@{domain_of(current)}")
        if current in mail.mailboxes and (targets is None or current in targets):
            found.append(current)
        elif targets is not None and any(domain_of(target) not in view.site.domains for target in targets):
            found += [target for target in targets if domain_of(target) not in view.site.domains]
        waiting += targets or ()
    return sorted(set(found))


@AREA.error(
    "no-mailbox",
    remedy="add it to mail.aliases, or to dns.external_report_addresses when the secret store has it",
    source="RFC 9989 section 4.7",
)
def no_mailbox(view: View) -> Found:
    """Reports are asked for at an address that takes no mail."""
    for label, address in _own_addresses(view):
        if not _destinations(view, address) and not (view.site.dns and address in view.site.dns.external_report_addresses):
            yield label, "is asked to take reports, but is neither a mailbox nor an alias"


@AREA.warning("deleted-by-retention", remedy="alias it to another mailbox")
def deleted_by_retention(view: View) -> Found:
    """Reports are automated mail, which a retention rule deletes in that mailbox."""
    for label, address in _own_addresses(view):
        if expiring := [box for box in _destinations(view, address) if box in view.expiring]:
            yield label, f"takes reports, which retention deletes in {', '.join(expiring)}"


@AREA.warning("in-catch-all", remedy="give it an alias", source="RFC 9990 section 4")
def in_catch_all(view: View) -> Found:
    """Reports that only the catch-all takes are lost among other mail."""
    mail = view.site.mail
    for label, address in _own_addresses(view):
        if address not in mail.mailboxes and address not in mail.aliases and (ends := _destinations(view, address)):
            yield label, f"takes reports only through the catch-all, in {', '.join(ends)}"
