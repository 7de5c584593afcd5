"""Rules for what receivers judge mail by: SPF, DKIM, DMARC."""

import base64
import binascii
from collections.abc import Iterator

from checkdmarc.dmarc import DMARCError, parse_dmarc_record
from checkdmarc.spf import SPFError, SPFTooManyDNSLookups, SPFTooManyVoidDNSLookups, parse_spf_record
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from publicsuffixlist import PublicSuffixList

from components.checks.dns.view import Finding, View, error, warning
from components.dns.content import txt_value
from components.settings.types import Fqdn

RSA_BITS = 2048  # RFC 8301 section 3.2
LOOKUPS = 10  # RFC 7208 section 4.6.4
_SUFFIXES = PublicSuffixList()


def senders(view: View) -> Iterator[tuple[Fqdn, bool]]:
    """Each domain whose records are judged, and whether it is parked."""
    yield from ((domain, False) for domain in view.site.domains)
    yield from ((domain, True) for domain in (view.site.dns.parked if view.site.dns else ()))


def texts(view: View, name: str, version: str) -> list[str]:
    """The TXT values of `name` that begin like a record of this kind."""
    values = [txt_value(record.content) for record in view.at(name, "TXT")]
    return [value for value in values if value.lower().startswith(version)]


def spf(view: View) -> Iterator[Finding]:
    for domain, parked in senders(view):
        where, source = f"{domain} TXT (SPF)", "RFC 7208"
        found = texts(view, domain, "v=spf1")
        if len(found) != 1:
            yield error(where, f"{len(found)} records begin with v=spf1; there must be exactly one", f"{source} section 4.5")
            continue
        terms = found[0].lower().split()
        if "all" in terms or "+all" in terms:
            yield error(where, "+all lets the whole world send; end with -all or ~all", f"{source} section 5.1")
        if any(term.lstrip("+-~?").partition(":")[0] == "ptr" for term in terms):
            yield error(where, "ptr is slow and unreliable; name hosts or addresses", f"{source} section 5.5")
        try:
            parsed = parse_spf_record(found[0], domain, parked=parked, resolver=view.resolver)
        except (SPFTooManyDNSLookups, SPFTooManyVoidDNSLookups) as problem:
            yield error(where, f"{problem}; name addresses instead of hosts, or drop an include", f"{source} section 4.6.4")
        except SPFError as problem:
            yield error(where, str(problem), f"{source} section 12")
        else:
            yield from (warning(where, text, source) for text in parsed["warnings"])
        if not parked:
            yield from _sending(view, domain, where, terms)


def _sending(view: View, domain: Fqdn, where: str, terms: list[str]) -> Iterator[Finding]:
    relay = view.site.mail.relay
    named = [term for term in terms[1:] if term.lstrip("+-~?") != "all"]
    if relay and all(term.lstrip("+") in {"mx", "a"} for term in named):
        yield warning(where, f"mail leaves through {relay.host}, which nothing here names; add the relay's include", "RFC 7208 section 2.3")
    if not relay and not named:
        yield warning(where, "mail leaves from your own address, which nothing here names; set spf.mx or addresses", "RFC 7208 section 2.3")
    if terms[-1] in {"~all", "?all"}:
        yield warning(
            where, f"{terms[-1]} lets forgeries pass as doubtful; set spf.all to fail when all senders are known", "RFC 7208 section 5.1"
        )


def dkim(view: View) -> Iterator[Finding]:
    published: dict[str, set[str]] = {}
    for name, there in view.by_name.items():
        _, mark, domain = name.partition("._domainkey.")
        if not mark:
            continue
        where, kinds = f"{name} TXT (DKIM)", published.setdefault(domain, set())
        if any(record.type == "CNAME" for record in there):
            kinds.add("relay")
        values = [txt_value(record.content) for record in there if record.type == "TXT"]
        if len(values) > 1:
            yield error(where, "several records answer for one selector; keep one", "RFC 6376 section 3.6.2.2")
        for value in values:
            tags = _tags(value)
            if tags.get("p"):
                kinds.add(tags.get("k", "rsa"))
                yield from _dkim_key(where, tags)
    for domain in view.site.domains:
        kinds = published.get(domain, set())
        where = f"{domain} TXT (DKIM)"
        if kinds == {"ed25519"}:
            yield warning(where, "Ed25519 alone is no signature to those who know only RSA; sign with an RSA key too", "RFC 8463 section 5")
        if not kinds and view.site.domains[domain].dkim:
            yield warning(where, "no key is published, so no signature can be checked; set public_key", "RFC 6376 section 3.6")


def _dkim_key(where: str, tags: dict[str, str]) -> Iterator[Finding]:
    if tags.get("v", "DKIM1") != "DKIM1":
        yield error(where, f"version {tags['v']} is none; write v=DKIM1", "RFC 6376 section 3.6.1")
    if "h" in tags and "sha256" not in tags["h"].split(":"):
        yield error(where, f"h={tags['h']} leaves no hash that may be used; write h=sha256", "RFC 8301 section 3.1")
    if "y" in tags.get("t", "").split(":"):
        yield warning(where, "t=y says that signatures are only tried out; remove it", "RFC 6376 section 3.6.1")
    try:
        octets = base64.b64decode("".join(tags["p"].split()), validate=True)
        if tags.get("k", "rsa") == "ed25519":
            if len(octets) != 32:
                yield error(where, f"an Ed25519 key has 32 octets, this one {len(octets)}", "RFC 8463 section 4")
            return
        key = load_der_public_key(octets)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        yield error(where, "p= holds no public key; copy it again, whole", "RFC 6376 section 3.6.1")
        return
    if not isinstance(key, RSAPublicKey):
        yield error(where, "p= holds a key that is not RSA, as k= says", "RFC 6376 section 3.3.3")
    elif key.key_size < RSA_BITS:
        yield error(where, f"the RSA key has {key.key_size} bits; sign with {RSA_BITS}", "RFC 8301 section 3.2")


def _tags(value: str) -> dict[str, str]:
    """A tag list (RFC 6376 section 3.2) as a map."""
    parts = (part.partition("=") for part in value.split(";"))
    return {tag.strip(): text.strip() for tag, mark, text in parts if mark}


def dmarc(view: View) -> Iterator[Finding]:
    for domain, parked in senders(view):
        where, source = f"_dmarc.{domain} TXT (DMARC)", "RFC 9989"
        if _SUFFIXES.is_public(domain):
            yield warning(where, f"{domain} is a public suffix, under which strangers register names", f"{source} section 4.7")
        found = texts(view, f"_dmarc.{domain}", "v=dmarc1")
        if texts(view, domain, "v=dmarc1"):
            yield error(
                where, f"a DMARC record stands at {domain}, where nobody looks; move it to _dmarc.{domain}", f"{source} section 4.10"
            )
        if not found:
            organisation = _SUFFIXES.privatesuffix(domain)
            inherited = organisation != domain and texts(view, f"_dmarc.{organisation}", "v=dmarc1")
            if not inherited:
                yield warning(where, "is missing; large receivers want one, p=none at least", f"{source} section 4.7")
            continue
        if len(found) > 1:
            yield error(where, f"{len(found)} records; receivers then use none of them, keep one", f"{source} section 4.10")
            continue
        try:
            parsed = parse_dmarc_record(found[0], domain, parked=parked, resolver=view.resolver)
        except DMARCError as problem:
            yield error(where, str(problem), f"{source} section 4.8")
            continue
        yield from (warning(where, text, source) for text in parsed["warnings"])
        if not parked and parsed["tags"]["p"]["value"] != "none":
            yield from _alignment(view, domain, where)


def _alignment(view: View, domain: Fqdn, where: str) -> Iterator[Finding]:
    """A relay sends with a bounce address of its own, so SPF passes for its domain: only DKIM can align then."""
    keys = any(key.signs and key.public_key for key in view.site.domains[domain].dkim)
    if keys or domain in view.delegated:
        return
    if view.site.mail.relay:
        yield error(
            where,
            f"asks receivers to punish what does not align, but nothing signs for {domain} and the relay's own address does not align; "
            "publish a DKIM key first, or set the policy to none",
            "RFC 9989 section 4.4",
        )
    else:
        yield warning(
            where, f"nothing signs for {domain}, so everything that is forwarded fails; publish a DKIM key", "RFC 9989 section 4.4"
        )
