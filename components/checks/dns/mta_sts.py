"""Rules for MTA-STS: the record, the policy, and the host that serves it."""

from collections.abc import Iterator

from checkdmarc.mta_sts import MTASTSError, mx_in_mta_sts_patterns, parse_mta_sts_policy, parse_mta_sts_record

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.dns.mta_sts import POLICY_HOST, policy_id, policy_text
from components.dns.web_pages import web_hosts
from components.settings.dns import MtaSts
from components.settings.types import Fqdn

DAY = 86_400
ENFORCE_MIN_AGE = 14 * DAY  # a policy that is forgotten sooner does not protect senders who write once a fortnight
WATCH_DAYS = 28  # four weeks of reports see the monthly senders once

AREA = Area[View]("mta-sts", "MTA-STS: TLS that senders insist on")

_TEST_FIRST = f"publish `testing`, read the TLS reports for {WATCH_DAYS} days, and say so in mta_sts.testing_since"


def _label(domain: Fqdn) -> str:
    return f"_mta-sts.{domain} TXT (MTA-STS)"


def _setting(domain: Fqdn) -> str:
    return f"domains.{domain}.dns.mta_sts"


def _texts(view: View, domain: Fqdn) -> list[str]:
    return view.texts(f"_mta-sts.{domain}", "v=stsv1")


def _policies(view: View) -> Iterator[tuple[Fqdn, MtaSts]]:
    for domain, settings in view.site.domains.items():
        if settings.dns.mta_sts:
            yield domain, settings.dns.mta_sts


def _announced(record: str) -> str | MTASTSError:
    try:
        return parse_mta_sts_record(record)["tags"]["id"]
    except MTASTSError as problem:
        return problem


@AREA.error("several-records", remedy="keep one", source="RFC 8461 section 3.1")
def several_records(view: View) -> Found:
    """Senders ignore all of several records."""
    for domain in view.site.domains:
        if (found := len(_texts(view, domain))) > 1:
            yield _label(domain), f"{found} records; senders then act as if there were none"


@AREA.error("not-served", remedy="set mta_sts, or remove the record", source="RFC 8461 section 3.3")
def not_served(view: View) -> Found:
    """The record announces a policy that nothing serves."""
    for domain, settings in view.site.domains.items():
        if settings.dns.mta_sts is None and len(_texts(view, domain)) == 1:
            yield _label(domain), "announces a policy that nothing serves"


@AREA.error("no-record", remedy="publish it", source="RFC 8461 section 3.1")
def no_record(view: View) -> Found:
    """Without the record no sender asks for the policy."""
    for domain, _ in _policies(view):
        if not _texts(view, domain):
            yield _label(domain), "is missing, so no sender asks for the policy"


def _ids(view: View) -> Iterator[tuple[Fqdn, str | MTASTSError]]:
    for domain, _ in _policies(view):
        if len(texts := _texts(view, domain)) == 1:
            yield domain, _announced(texts[0])


@AREA.error("invalid-record", remedy="correct it", source="RFC 8461 section 3.1")
def invalid_record(view: View) -> Found:
    """A record that does not parse."""
    for domain, announced in _ids(view):
        if isinstance(announced, MTASTSError):
            yield _label(domain), str(announced)


@AREA.error("id", remedy="publish the policy's id", source="RFC 8461 section 3.1")
def id_(view: View) -> Found:
    """Senders fetch a changed policy only when the record's id changes."""
    for domain, announced in _ids(view):
        if isinstance(announced, str) and announced != (right := policy_id(view.site, domain)):
            yield _label(domain), f"id={announced} is not that of the policy, {right}; senders keep the old policy"


@AREA.error("mx-not-named", remedy="set the domain's mx", source="RFC 8461 section 4.1")
def mx_not_named(view: View) -> Found:
    """Under an enforced policy senders deliver to no MX that it does not name."""
    for domain, _ in _policies(view):
        patterns = list(parse_mta_sts_policy(policy_text(view.site, domain))["policy"].get("mx", []))
        for record in view.at(domain, "MX"):
            if not mx_in_mta_sts_patterns(record.content, patterns):
                yield _setting(domain), f"the policy does not name {record.content}, an MX of the domain; senders would not deliver there"


@AREA.error("short-lived", remedy="set max_age to a day at least, to weeks once it is enforced", source="RFC 8461 section 3.2")
def short_lived(view: View) -> Found:
    """A policy that senders forget within a day protects almost no message."""
    for domain, settings in _policies(view):
        if settings.mode != "none" and settings.max_age < DAY:
            yield _setting(domain), f"max_age of {settings.max_age} s protects no one"


@AREA.warning("short-for-enforce", remedy="set two weeks or more", source="RFC 8461 section 10.2")
def short_for_enforce(view: View) -> Found:
    """Between two messages of an occasional sender the policy must not expire."""
    for domain, settings in _policies(view):
        if settings.mode == "enforce" and DAY <= settings.max_age < ENFORCE_MIN_AGE:
            yield _setting(domain), f"max_age of {settings.max_age // DAY} days is short for enforce"


def _enforced(view: View) -> Iterator[tuple[Fqdn, MtaSts]]:
    return ((domain, settings) for domain, settings in _policies(view) if settings.mode == "enforce")


@AREA.error("untested", remedy=_TEST_FIRST, source="RFC 8461 section 8.2")
def untested(view: View) -> Found:
    """Enforcing by surprise loses mail: senders do not deliver to an MX with a wrong certificate."""
    for domain, settings in _enforced(view):
        if settings.testing_since is None:
            yield _setting(domain), "enforce was never tested"
        elif (watched := (view.today - settings.testing_since).days) < WATCH_DAYS:
            yield _setting(domain), f"testing was watched for {watched} days only"


@AREA.error("unreported", remedy="set tls_reports", source="RFC 8460 section 3")
def unreported(view: View) -> Found:
    """Mail that an enforced policy holds back is seen in TLS reports only."""
    for domain, _ in _enforced(view):
        if not view.site.domains[domain].dns.tls_reports:
            yield _setting(domain), "enforce without TLS reports would fail unseen"


@AREA.warning("mx-elsewhere", source="RFC 8461 section 4.2")
def mx_elsewhere(view: View) -> Found:
    """A second MX on another machine needs a certificate for its own name as soon as the policy is enforced."""
    ours = {view.site.host(name) for name in view.site.domains}
    for domain, _ in _enforced(view):
        for host in (record.content for record in view.at(domain, "MX") if record.content not in ours):
            yield (
                _setting(domain),
                f"{host} is run elsewhere",
                "make sure that it has a certificate for that very name, or it gets no more mail",
            )


@AREA.error("host-without-address", remedy="set it", source="RFC 8461 section 3.3")
def host_without_address(view: View) -> Found:
    """Without an address of mta-sts.<domain> the policy cannot be fetched."""
    for domain, _ in _policies(view):
        host = f"{POLICY_HOST}.{domain}"
        if _texts(view, domain) and not any(record.type in {"A", "AAAA", "CNAME"} for record in view.by_name.get(host, ())):
            yield "dns.web", f"gives {host} no address, so the policy cannot be fetched"


@AREA.error("certificate", remedy="list the certificate's names, or set cluster_issuer", source="RFC 8461 section 3.3")
def certificate(view: View) -> Found:
    """The hosts of the policy server have a certificate for their own names."""
    for name, domain in view.site.domains.items():
        for label, certificate in web_hosts(domain.dns).items():
            if not certificate.covers(host := f"{label}.{name}"):
                setting = "mta_sts.certificate" if label == POLICY_HOST else label
                yield f"domains.{name}.dns.{setting}.names", f"no name in the certificate of Secret {certificate.secret} covers {host}"
