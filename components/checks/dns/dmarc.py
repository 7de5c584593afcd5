"""Rules for DMARC: what receivers do with mail that fails, and whether ours passes."""

from collections.abc import Iterator

from checkdmarc.dmarc import DMARCError, ParsedDMARCRecord, parse_dmarc_record
from publicsuffixlist import PublicSuffixList

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.settings.types import Fqdn

AREA = Area[View]("dmarc", "DMARC: what receivers do with mail that fails")

_SUFFIXES = PublicSuffixList()


def _label(domain: Fqdn) -> str:
    return f"_dmarc.{domain} TXT (DMARC)"


def _texts(view: View, domain: Fqdn) -> list[str]:
    return view.texts(f"_dmarc.{domain}", "v=dmarc1")


def _parse(view: View, domain: Fqdn, parked: bool) -> ParsedDMARCRecord | DMARCError:
    try:
        return parse_dmarc_record(_texts(view, domain)[0], domain, parked=parked, resolver=view.resolver)
    except DMARCError as problem:
        return problem


def _verdicts(view: View) -> Iterator[tuple[Fqdn, bool, ParsedDMARCRecord | DMARCError]]:
    """Domain, whether it is parked, and what its one record says; none or several are named by other rules."""
    for domain, parked in view.senders():
        if len(_texts(view, domain)) == 1:
            yield domain, parked, view.once(_parse, domain, parked)


@AREA.warning("public-suffix", remedy="use a domain that you registered", source="RFC 9989 section 4.7")
def public_suffix(view: View) -> Found:
    """Anyone may register names below a public suffix, so its policy cannot speak for them."""
    for domain, _ in view.senders():
        if _SUFFIXES.is_public(domain):
            yield _label(domain), f"{domain} is a public suffix, below which anyone may register names"


@AREA.error("wrong-name", source="RFC 9989 section 4.10")
def wrong_name(view: View) -> Found:
    """A DMARC record at the domain itself instead of at `_dmarc.`."""
    for domain, _ in view.senders():
        if view.texts(domain, "v=dmarc1"):
            yield f"{domain} TXT", "a DMARC record is at the domain itself, where no receiver looks", f"move it to _dmarc.{domain}"


@AREA.warning("missing", remedy="publish one, at least with p=none", source="RFC 9989 section 4.7")
def missing(view: View) -> Found:
    """Large receivers expect a DMARC record of everyone who sends."""
    for domain, _ in view.senders():
        organisation = _SUFFIXES.privatesuffix(domain)
        inherited = organisation != domain and view.texts(f"_dmarc.{organisation}", "v=dmarc1")
        if not _texts(view, domain) and not inherited:
            yield _label(domain), "is missing"


@AREA.error("several-records", remedy="keep one", source="RFC 9989 section 4.10")
def several_records(view: View) -> Found:
    """Receivers ignore all of several records."""
    for domain, _ in view.senders():
        if (found := len(_texts(view, domain))) > 1:
            yield _label(domain), f"{found} records; receivers then use none of them"


@AREA.error("invalid", remedy="correct it", source="RFC 9989 section 4.8")
def invalid(view: View) -> Found:
    """A record that does not parse."""
    for domain, _, verdict in _verdicts(view):
        if isinstance(verdict, DMARCError):
            yield _label(domain), str(verdict)


@AREA.warning("dubious", source="RFC 9989")
def dubious(view: View) -> Found:
    """What checkdmarc advises about a valid record."""
    for domain, _, verdict in _verdicts(view):
        if not isinstance(verdict, DMARCError):
            yield from ((_label(domain), text) for text in verdict["warnings"])


def _unsigned(view: View) -> Iterator[str]:
    """Domains with a policy that punishes, for which no published key signs."""
    for domain, parked, verdict in _verdicts(view):
        if parked or isinstance(verdict, DMARCError) or verdict["tags"]["p"]["value"] == "none":
            continue
        keys = any(key.signs and key.public_key for key in view.site.domains[domain].dkim)
        if not keys and domain not in view.delegated:
            yield domain


@AREA.error("nothing-aligns", remedy="publish a DKIM key first, or set the policy to none", source="RFC 9989 section 4.4")
def nothing_aligns(view: View) -> Found:
    """A relay sends with a bounce address of its own, so SPF passes for its domain: only DKIM can align, and nothing signs."""
    for domain in _unsigned(view) if view.site.mail.relay else ():
        yield (
            _label(domain),
            f"the policy punishes unaligned mail, nothing signs for {domain}, and the relay's own address does not align",
        )


@AREA.warning("forwarding-fails", remedy="publish a DKIM key", source="RFC 9989 section 4.4")
def forwarding_fails(view: View) -> Found:
    """SPF fails as soon as a receiver forwards a message; only a signature survives that."""
    for domain in _unsigned(view) if not view.site.mail.relay else ():
        yield _label(domain), f"nothing signs for {domain}, so every message that is forwarded fails"
