"""Rules for any record: canonical form, no conflicts, sizes, limits, and mail hosts that can be reached."""

from collections import Counter
from collections.abc import Iterator

import dns.exception
import dns.resolver

from components.checks.dns.view import Finding, View, error, warning
from components.dns.content import STRING_OCTETS, canonical, name, txt_strings
from components.dns.mta_sts import mail_exchangers
from components.dns.records import zone_of, zones

UDP_OCTETS = 512  # an answer without EDNS (RFC 1035 section 4.2.1)
EDNS_OCTETS = 1232  # what common resolvers and servers agree on since 2020 (dnsflagday.net)
RECORD_OCTETS = 2048  # of one TXT record at Cloudflare
NAME_OCTETS = 8192  # of all TXT records of a name at Cloudflare


def form(view: View) -> Iterator[Finding]:
    """Names and contents as Cloudflare stores them."""
    for record in view.records:
        where = f"{record.name} {record.type}"
        try:
            stored_name = name(record.name)
            stored = record.content if record.content == "." else canonical(record.type, record.content)
        except ValueError as problem:
            yield error(where, f"{record.content!r} cannot be stored: {problem}", "RFC 1035 section 2.3")
            continue
        if record.name != stored_name:
            yield error(where, f"the name is stored as {stored_name}; write it so, or every preview shows a change", "canonical form")
        if record.type == "TXT" and (long := [part for part in txt_strings(record.content) if len(part) > STRING_OCTETS]):
            yield error(where, f"one string of {len(long[0])} octets, where {STRING_OCTETS} is the limit; split it", "RFC 1035 section 3.3")
        elif record.content != stored:
            yield error(where, f"the content is stored as {stored}; write it so, or every preview shows a change", "canonical form")


def conflicts(view: View) -> Iterator[Finding]:
    """No record twice, and nothing beside a CNAME."""
    for (owner, kind, content), times in Counter((record.name, record.type, record.content) for record in view.records).items():
        if times > 1:
            yield error(f"{owner} {kind}", f"{content} stands {times} times; Cloudflare refuses the second", "RFC 2181 section 5")
    for owner, there in view.by_name.items():
        kinds = {record.type for record in there}
        aliases = sum(record.type == "CNAME" for record in there)
        if aliases and kinds != {"CNAME"}:
            others = ", ".join(sorted(kinds - {"CNAME"}))
            yield error(f"{owner} CNAME", f"stands beside {others}; a CNAME is alone at its name, remove one", "RFC 1034 section 3.6.2")
        if aliases > 1:
            yield error(f"{owner} CNAME", "leads to several names; keep one", "RFC 2181 section 10.1")
        if aliases and owner in zones(view.site):
            yield error(f"{owner} CNAME", "a zone's own name holds SOA and NS and can be no CNAME", "RFC 1912 section 2.4")


def sizes(view: View) -> Iterator[Finding]:
    """Answers that get through: TXT of one name come together, so they count together."""
    for owner, there in view.by_name.items():
        texts = [txt_strings(record.content) for record in there if record.type == "TXT"]
        octets = [sum(len(part) + 1 for part in strings) for strings in texts]
        if not octets:
            continue
        where = f"{owner} TXT"
        if max(octets) > RECORD_OCTETS or sum(octets) > NAME_OCTETS:
            yield error(
                where,
                f"{max(octets)} octets in one record, {sum(octets)} in all; Cloudflare takes {RECORD_OCTETS} and {NAME_OCTETS}",
                "Cloudflare's limits",
            )
        # Header, question, and for each record a compressed name, type, class, TTL and length (RFC 1035 section 4.1).
        answer = 12 + len(owner) + 2 + 4 + sum(12 + size for size in octets)
        has_spf = any("".join(strings).lower().startswith("v=spf1") for strings in texts)
        if answer > EDNS_OCTETS:
            yield warning(
                where, f"the answer has {answer} octets and needs TCP; drop proofs that are no longer asked for", "RFC 7766 section 5"
            )
        elif has_spf and answer > UDP_OCTETS:
            yield warning(
                where,
                f"the answer with the SPF record has {answer} octets; keep it below {UDP_OCTETS}, drop proofs that are no longer asked for",
                "RFC 7208 section 3.4",
            )


def limits(view: View) -> Iterator[Finding]:
    """What the plan of each zone allows, and adoption entries that name nothing."""
    counts = Counter(record.zone for record in view.records)
    keys = Counter((record.zone, record.key) for record in view.records)
    for zone, settings in zones(view.site).items():
        total = counts[zone] + settings.other_records
        if settings.cloudflare and total > settings.record_limit:
            yield error(
                zone,
                f"{counts[zone]} records here and {settings.other_records} of others are more than the {settings.record_limit} "
                "that the plan allows; remove some, or raise record_limit with the plan",
                "Cloudflare's limits",
            )
        elif settings.cloudflare and total * 20 > settings.record_limit * 19:
            yield warning(zone, f"{total} of {settings.record_limit} records are used", "Cloudflare's limits")
        for key in settings.adopt:
            if (zone, key) not in keys:
                yield error(zone, f"adopt: there is no record {key!r}; the render prints the keys", "settings")
    for (zone, key), times in keys.items():
        if times > 1:
            yield error(zone, f"two records have the key {key!r}; one of them has to go", "settings")


def mail_hosts(view: View) -> Iterator[Finding]:
    """Every MX and SRV leads to a name with addresses of its own."""
    for domain in view.site.domains:
        if not view.at(domain, "MX"):
            yield error(f"{domain} MX", "is missing; mail would go to the name's own address, if any", "RFC 5321 section 5.1")
    for record in view.records:
        where = f"{record.name} {record.type}"
        if record.type == "MX" and record.content == ".":
            if len(view.at(record.name, "MX")) > 1:
                yield error(where, "a null MX stands alone; remove it or the others", "RFC 7505 section 3")
            continue
        target = record.content if record.type == "MX" else dict(record.data).get("target")
        if record.type not in {"MX", "SRV"} or not target or target == ".":  # `.` says that there is no such service
            continue
        source = "RFC 5321 section 5.1" if record.type == "MX" else "RFC 2782"
        yield from _reachable(view, where, str(target), source)
    for domain in view.site.domains:
        for host in mail_exchangers(view.site, domain):
            for record in view.by_name.get(host, ()):
                if record.proxied:
                    yield error(f"{host} {record.type}", "is proxied, and the proxy speaks no SMTP; set proxied off", "Cloudflare's proxy")


def _reachable(view: View, where: str, target: str, source: str) -> Iterator[Finding]:
    if view.at(target, "CNAME"):
        yield error(where, f"{target} is a CNAME, which an MX or SRV must not lead to; give it addresses", "RFC 2181 section 10.3")
        return
    declared = view.site.dns.hosts.get(target) if view.site.dns else None
    if view.at(target, "A") or view.at(target, "AAAA"):
        return
    if declared:
        yield warning(where, f"{target} lies outside our zones; its owner has to publish its addresses", source)
    elif zone_of(target, zones(view.site)) or not _has_address(view, target):
        yield error(where, f"{target} has no address; declare it in dns.hosts", source)


def _has_address(view: View, target: str) -> bool:
    for kind in ("A", "AAAA"):
        try:
            view.resolver.resolve(target, kind)
        except dns.exception.DNSException:
            continue
        return True
    return False
