"""Rules for SPF: who may send for a domain."""

from collections.abc import Iterator
from typing import cast

from checkdmarc.spf import ParsedSPFRecordSuccess, SPFError, SPFTooManyDNSLookups, SPFTooManyVoidDNSLookups, parse_spf_record

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.settings.types import Fqdn

AREA = Area[View]("spf", "SPF: who may send for a domain")


def _parse(view: View, record: str, domain: Fqdn, parked: bool) -> ParsedSPFRecordSuccess | SPFError:
    try:
        return cast(ParsedSPFRecordSuccess, parse_spf_record(record, domain, parked=parked, resolver=view.resolver))
    except SPFError as problem:
        return problem


def _records(view: View) -> Iterator[tuple[Fqdn, bool, str]]:
    """Domain, whether it is parked, and its SPF record; a domain with none or several is named by `count`."""
    for domain, parked in view.senders():
        found = view.texts(domain, "v=spf1")
        if len(found) == 1:
            yield domain, parked, found[0]


def _verdicts(view: View) -> Iterator[tuple[str, ParsedSPFRecordSuccess | SPFError]]:
    for domain, parked, record in _records(view):
        yield _label(domain), view.once(_parse, record, domain, parked)


def _label(domain: Fqdn) -> str:
    return f"{domain} TXT (SPF)"


def _terms(record: str) -> list[str]:
    return record.lower().split()


@AREA.error("count", remedy="publish exactly one", source="RFC 7208 section 4.5")
def count(view: View) -> Found:
    """Receivers reject or ignore a domain that has several SPF records; without one, anyone may send."""
    for domain, _ in view.senders():
        if (found := len(view.texts(domain, "v=spf1"))) != 1:
            yield _label(domain), f"{found} records begin with v=spf1"


@AREA.error("passes-everyone", remedy="end with -all or ~all", source="RFC 7208 section 5.1")
def passes_everyone(view: View) -> Found:
    """`+all` makes every forgery pass."""
    for domain, _, record in _records(view):
        if {"all", "+all"} & set(_terms(record)):
            yield _label(domain), "+all lets anyone on the Internet send"


@AREA.error("ptr", remedy="name hosts or addresses", source="RFC 7208 section 5.5")
def ptr(view: View) -> Found:
    """`ptr` must not be published any more."""
    for domain, _, record in _records(view):
        if any(term.lstrip("+-~?").partition(":")[0] == "ptr" for term in _terms(record)):
            yield _label(domain), "ptr is slow and unreliable"


@AREA.error("too-many-lookups", remedy="name addresses instead of hosts, or drop an include", source="RFC 7208 section 4.6.4")
def too_many_lookups(view: View) -> Found:
    """Receivers stop after ten DNS lookups, or two that find nothing, and the record fails as a whole."""
    for label, verdict in _verdicts(view):
        if isinstance(verdict, SPFTooManyDNSLookups | SPFTooManyVoidDNSLookups):
            yield label, str(verdict)


@AREA.error("invalid", remedy="correct it", source="RFC 7208 section 12")
def invalid(view: View) -> Found:
    """A record that does not parse, or that includes one that does not exist, fails as a whole."""
    for label, verdict in _verdicts(view):
        if isinstance(verdict, SPFError) and not isinstance(verdict, SPFTooManyDNSLookups | SPFTooManyVoidDNSLookups):
            yield label, str(verdict)


@AREA.warning("dubious", source="RFC 7208")
def dubious(view: View) -> Found:
    """What checkdmarc advises about a valid record."""
    for label, verdict in _verdicts(view):
        if not isinstance(verdict, SPFError):
            yield from ((label, text) for text in verdict["warnings"])


def _named(record: str) -> list[str]:
    return [term for term in _terms(record)[1:] if term.lstrip("+-~?") != "all"]


@AREA.warning("relay-not-named", remedy="add the relay's include", source="RFC 7208 section 2.3")
def relay_not_named(view: View) -> Found:
    """All mail leaves through a relay, but the record names only our own hosts."""
    relay = view.site.mail.relay
    for domain, parked, record in _records(view):
        if relay and not parked and all(term.lstrip("+") in {"mx", "a"} for term in _named(record)):
            yield _label(domain), f"mail leaves through {relay.host}, which the record does not name"


@AREA.warning("own-address-not-named", remedy="set spf.mx or spf.addresses", source="RFC 7208 section 2.3")
def own_address_not_named(view: View) -> Found:
    """Mail leaves from our own address, and the record names only other operators' senders, or none."""
    for domain, parked, record in _records(view):
        if not view.site.mail.relay and not parked and all(term.startswith("include:") for term in _named(record)):
            yield _label(domain), "mail leaves from your own address, which the record does not name"


@AREA.warning("softfail", remedy="set spf.all to fail when all senders are known", source="RFC 7208 section 5.1")
def softfail(view: View) -> Found:
    """`~all` and `?all` leave it to each receiver what becomes of a forgery."""
    for domain, parked, record in _records(view):
        if not parked and (last := _terms(record)[-1]) in {"~all", "?all"}:
            yield _label(domain), f"{last} does not reject forgeries"
