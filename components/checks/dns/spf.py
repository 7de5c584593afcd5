"""Rules for SPF: who may send for a domain."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from typing import Any, cast

from checkdmarc.spf import ParsedSPFRecordSuccess, SPFError, SPFTooManyDNSLookups, SPFTooManyVoidDNSLookups, parse_spf_record

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.settings.types import Address, Fqdn

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


def _matches(view: View, mechanism: Mapping[str, Any], address: Address) -> bool:
    kind = mechanism["mechanism"]
    if kind == "include":
        return bool(mechanism["parsed"]) and _verdict(view, mechanism["parsed"], address) == "pass"
    networks = {"ip4": [mechanism["value"]], "ip6": [mechanism["value"]], "a": mechanism.get("addresses", [])}.get(kind, [])
    if kind == "mx":
        hosts = [host["hostname"] for host in mechanism["hosts"]]
        networks = [record.content for host in hosts for kind in ("A", "AAAA") for record in view.at(host, kind)]
    return any(address in ip_network(network, strict=False) for network in networks)


def _verdict(view: View, parsed: Mapping[str, Any], address: Address) -> str | None:
    """What a receiver concludes for a message from `address` (RFC 7208 section 4.6.2); mechanisms with macros and `exists` never match."""
    for mechanism in parsed["mechanisms"]:
        if _matches(view, mechanism, address):
            return mechanism["action"]
    redirect = parsed["redirect"]
    return _verdict(view, redirect["parsed"], address) if redirect and redirect["parsed"] else parsed["all"]


def _own_mail(view: View) -> Iterator[tuple[str, Address, str | None, bool]]:
    """Label, address and verdict for each address that mail leaves from without a relay, and whether an include is not known."""
    site = view.site
    host = site.dns.hosts.get(site.hostname) if site.dns and not site.mail.relay else None
    for domain, parked, record in _records(view) if host else ():
        judged = view.once(_parse, record, domain, parked)
        if parked or isinstance(judged, SPFError):
            continue
        unknown = any((term.partition(":")[2], "TXT") in view.resolver.unknown for term in _terms(record))
        for address in host.addresses if host else ():
            yield _label(domain), address, _verdict(view, judged["parsed"], address), unknown


_NAME_YOURSELF = "set spf.mx, or add the address that mail leaves from to spf.addresses"


@AREA.error("rejects-own-mail", remedy=_NAME_YOURSELF, source="RFC 7208 section 8.4", consent=True)
def rejects_own_mail(view: View) -> Found:
    """Without a relay, mail leaves from the mail host's own address, and the record tells receivers to reject that."""
    for label, address, verdict, unknown in _own_mail(view):
        if verdict == "fail" and not unknown:
            yield label, f"fails for {address}, the mail host's own address"


@AREA.warning("own-mail-doubtful", remedy=_NAME_YOURSELF, source="RFC 7208 section 2.3")
def own_mail_doubtful(view: View) -> Found:
    """Without a relay, mail leaves from the mail host's own address, and the record does not pass it."""
    for label, address, verdict, unknown in _own_mail(view):
        if verdict != "pass" and (unknown or verdict != "fail"):
            yield label, f"does not pass {address}, the mail host's own address"


@AREA.warning("softfail", remedy="set spf.all to fail when all senders are known", source="RFC 7208 section 5.1")
def softfail(view: View) -> Found:
    """`~all` and `?all` leave it to each receiver what becomes of a forgery."""
    for domain, parked, record in _records(view):
        if not parked and (last := _terms(record)[-1]) in {"~all", "?all"}:
            yield _label(domain), f"{last} does not reject forgeries"
