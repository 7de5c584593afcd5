"""Rules for any record: canonical form, no conflicts, sizes, limits, and mail hosts that can be reached."""

from collections import Counter
from collections.abc import Iterator

import dns.exception
import dns.resolver

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.dns.content import STRING_OCTETS, canonical, name, txt_strings
from components.dns.mta_sts import mail_exchangers
from components.dns.records import Record, zone_of, zones

UDP_OCTETS = 512  # an answer without EDNS (RFC 1035 section 4.2.1)
EDNS_OCTETS = 1232  # what common resolvers and servers agree on since 2020 (dnsflagday.net)
RECORD_OCTETS = 2048  # of one TXT record at Cloudflare
NAME_OCTETS = 8192  # of all TXT records of a name at Cloudflare

AREA = Area[View]("zone", "any DNS record: form, conflicts, sizes, reachable mail hosts")


def _label(record: Record) -> str:
    return f"{record.name} {record.type}"


def _stored(record: Record) -> tuple[str, str]:
    """Name and content as Cloudflare stores them. Raises ValueError for what it cannot store."""
    return name(record.name), record.content if record.content == "." else canonical(record.type, record.content)


def _storable(view: View) -> Iterator[tuple[Record, str, str]]:
    for record in view.records:
        try:
            yield record, *_stored(record)
        except ValueError:
            continue  # `invalid` names it


def _long_strings(record: Record) -> list[str]:
    return [part for part in txt_strings(record.content) if len(part) > STRING_OCTETS] if record.type == "TXT" else []


@AREA.error("invalid", remedy="correct it", source="RFC 1035 section 2.3")
def invalid(view: View) -> Found:
    """A name or content that no DNS server can store."""
    for record in view.records:
        try:
            _stored(record)
        except ValueError as problem:
            yield _label(record), f"{record.content!r} cannot be stored: {problem}"


@AREA.error("name-not-canonical")
def name_not_canonical(view: View) -> Found:
    """Cloudflare stores another spelling of the name, so every preview would show a change."""
    for record, stored, _ in _storable(view):
        if record.name != stored:
            yield _label(record), f"the name is stored as {stored}", "write it so, or every preview shows a change"


@AREA.error("content-not-canonical")
def content_not_canonical(view: View) -> Found:
    """Cloudflare stores another spelling of the content, so every preview would show a change."""
    for record, _, stored in _storable(view):
        if record.content != stored and not _long_strings(record):
            yield _label(record), f"the content is stored as {stored}", "write it so, or every preview shows a change"


@AREA.error("string-too-long", remedy="split it", source="RFC 1035 section 3.3")
def string_too_long(view: View) -> Found:
    """A TXT record is made of strings of at most 255 octets."""
    for record, _, _ in _storable(view):
        for part in _long_strings(record)[:1]:
            yield _label(record), f"one string of {len(part)} octets, where {STRING_OCTETS} is the limit"


@AREA.error("duplicate", remedy="remove one; Cloudflare refuses the second", source="RFC 2181 section 5")
def duplicate(view: View) -> Found:
    """The same record twice."""
    for (owner, kind, content), times in Counter((record.name, record.type, record.content) for record in view.records).items():
        if times > 1:
            yield f"{owner} {kind}", f"{content} is listed {times} times"


def _aliases(view: View) -> Iterator[tuple[str, list[Record]]]:
    for owner, there in view.by_name.items():
        if any(record.type == "CNAME" for record in there):
            yield owner, there


@AREA.error("beside-cname", remedy="remove one", source="RFC 1034 section 3.6.2")
def beside_cname(view: View) -> Found:
    """A CNAME is the only record of its name."""
    for owner, there in _aliases(view):
        if others := sorted({record.type for record in there} - {"CNAME"}):
            yield f"{owner} CNAME", f"is beside {', '.join(others)}; a CNAME must be alone at its name"


@AREA.error("several-cnames", remedy="keep one", source="RFC 2181 section 10.1")
def several_cnames(view: View) -> Found:
    """A name can be the alias of one other name only."""
    for owner, there in _aliases(view):
        if sum(record.type == "CNAME" for record in there) > 1:
            yield f"{owner} CNAME", "points to several names"


@AREA.error("cname-at-apex", remedy="use addresses", source="RFC 1912 section 2.4")
def cname_at_apex(view: View) -> Found:
    """The zone's own name has SOA and NS records, and a CNAME allows no others."""
    for owner, _ in _aliases(view):
        if owner in zones(view.site):
            yield f"{owner} CNAME", "the zone's own name has SOA and NS, so it cannot be a CNAME"


def _txt_sizes(view: View) -> Iterator[tuple[str, list[int], bool]]:
    """Name, octets of each of its TXT records, and whether one of them is SPF."""
    for owner, there in view.by_name.items():
        texts = [txt_strings(record.content) for record in there if record.type == "TXT"]
        if texts:
            spf = any("".join(strings).lower().startswith("v=spf1") for strings in texts)
            yield owner, [sum(len(part) + 1 for part in strings) for strings in texts], spf


def _answer_octets(owner: str, octets: list[int]) -> int:
    """Header, question, and for each record a compressed name, type, class, TTL and length (RFC 1035 section 4.1)."""
    return 12 + len(owner) + 2 + 4 + sum(12 + size for size in octets)


@AREA.error("too-large", remedy="drop proofs of ownership that are no longer asked for", source="Cloudflare's limits")
def too_large(view: View) -> Found:
    """TXT records that are larger than Cloudflare accepts, alone or all of a name together."""
    for owner, octets, _ in _txt_sizes(view):
        if max(octets) > RECORD_OCTETS or sum(octets) > NAME_OCTETS:
            limits = f"Cloudflare accepts {RECORD_OCTETS} and {NAME_OCTETS}"
            yield f"{owner} TXT", f"{max(octets)} octets in one record, {sum(octets)} in all; {limits}"


@AREA.warning("answer-needs-tcp", remedy="drop proofs of ownership that are no longer asked for", source="RFC 7766 section 5")
def answer_needs_tcp(view: View) -> Found:
    """All TXT records of a name come in one answer; one that needs TCP is lost on networks that block it."""
    for owner, octets, _ in _txt_sizes(view):
        if (answer := _answer_octets(owner, octets)) > EDNS_OCTETS:
            yield f"{owner} TXT", f"the answer has {answer} octets and needs TCP"


@AREA.warning("spf-answer-large", remedy="drop proofs of ownership that are no longer asked for", source="RFC 7208 section 3.4")
def spf_answer_large(view: View) -> Found:
    """The answer with the SPF record should fit into a UDP packet without EDNS."""
    for owner, octets, spf in _txt_sizes(view):
        if spf and UDP_OCTETS < (answer := _answer_octets(owner, octets)) <= EDNS_OCTETS:
            yield f"{owner} TXT", f"the answer with the SPF record has {answer} octets; keep it below {UDP_OCTETS}"


@AREA.error("full", remedy="remove some, or raise record_limit with the plan", source="Cloudflare's limits")
def full(view: View) -> Found:
    """More records than Cloudflare's plan allows in the zone."""
    counts = Counter(record.zone for record in view.records)
    for zone, settings in zones(view.site).items():
        if settings.cloudflare and counts[zone] + settings.other_records > settings.record_limit:
            yield (
                f"dns.zones.{zone}",
                f"{counts[zone]} records here and {settings.other_records} others are more than the {settings.record_limit} "
                "that the plan allows",
            )


@AREA.warning("nearly-full", remedy="remove some, or raise record_limit with the plan", source="Cloudflare's limits")
def nearly_full(view: View) -> Found:
    """More than 95 % of the records that Cloudflare's plan allows."""
    counts = Counter(record.zone for record in view.records)
    for zone, settings in zones(view.site).items():
        total = counts[zone] + settings.other_records
        if settings.cloudflare and settings.record_limit * 19 < total * 20 <= settings.record_limit * 20:
            yield f"dns.zones.{zone}", f"{total} of {settings.record_limit} records are used"


@AREA.error("adopts-nothing", remedy="the render prints the keys")
def adopts_nothing(view: View) -> Found:
    """An entry of `adopt` that names no record of ours."""
    keys = {(record.zone, record.key) for record in view.records}
    for zone, settings in zones(view.site).items():
        for key in settings.adopt:
            if (zone, key) not in keys:
                yield f"dns.zones.{zone}.adopt", f"there is no record {key!r}"


@AREA.warning("released", remedy="remove it after the `up`")
def released(view: View) -> Found:
    """Without protection a slip in the settings removes a record that mail depends on."""
    for zone, settings in zones(view.site).items():
        for entry in settings.release:
            kept = [record.key for record in view.records if record.zone == zone and record.carries_mail and entry in {"*", record.key}]
            text = f"{entry!r} takes the protection off {len(kept)} records" if kept else f"{entry!r} is not the key of a protected record"
            yield f"dns.zones.{zone}.release", text


@AREA.error("same-key", remedy="remove one of them")
def same_key(view: View) -> Found:
    """Two records with one key would be one resource."""
    for (zone, key), times in Counter((record.zone, record.key) for record in view.records).items():
        if times > 1:
            yield f"dns.zones.{zone}", f"two records have the key {key!r}"


@AREA.error("no-mx", remedy="set mx", source="RFC 5321 section 5.1")
def no_mx(view: View) -> Found:
    """Without an MX, mail goes to the addresses of the domain's own name, if it has any."""
    for domain in view.site.domains:
        if not view.at(domain, "MX"):
            yield f"{domain} MX", "is missing; mail would go to the name's own address, if any"


@AREA.error("null-mx-not-alone", remedy="remove it or the others", source="RFC 7505 section 3")
def null_mx_not_alone(view: View) -> Found:
    """A null MX says that the domain takes no mail, which another MX contradicts."""
    for owner in view.by_name:
        exchangers = view.at(owner, "MX")
        if len(exchangers) > 1 and any(record.content == "." for record in exchangers):
            yield f"{owner} MX", "a null MX must be the only MX"


def _targets(view: View) -> Iterator[tuple[str, str]]:
    """Each record that names a mail host, and the host."""
    for record in view.records:
        target = record.content if record.type == "MX" else dict(record.data).get("target")
        if record.type in {"MX", "SRV"} and target and target != ".":
            yield _label(record), str(target)


@AREA.error("target-is-cname", remedy="give it addresses", source="RFC 2181 section 10.3")
def target_is_cname(view: View) -> Found:
    """An MX or SRV must name a host with addresses of its own, not an alias."""
    for label, target in _targets(view):
        if view.at(target, "CNAME"):
            yield label, f"{target} is a CNAME, which an MX or SRV must not point to"


def _without_address(view: View) -> Iterator[tuple[str, str, bool]]:
    """Record, host, and whether the host is declared, for each host without an address among our records."""
    declared = view.site.dns.hosts if view.site.dns else {}
    for label, target in _targets(view):
        if not any(view.at(target, kind) for kind in ("CNAME", "A", "AAAA")):
            yield label, target, target in declared


@AREA.warning("target-outside", remedy="have its owner publish its addresses", source="RFC 5321 section 5.1, RFC 2782")
def target_outside(view: View) -> Found:
    """A declared mail host lies in no zone of ours, so its addresses are not published from here."""
    for label, target, declared in _without_address(view):
        if declared:
            yield label, f"{target} is outside our zones"


@AREA.error("target-without-address", remedy="declare it in dns.hosts", source="RFC 5321 section 5.1, RFC 2782")
def target_without_address(view: View) -> Found:
    """An MX or SRV that names a host without addresses: mail to it waits, and comes back after days."""
    for label, target, declared in _without_address(view):
        if not declared and (zone_of(target, zones(view.site)) or not _has_address(view, target)):
            yield label, f"{target} has no address"


def _has_address(view: View, target: str) -> bool:
    for kind in ("A", "AAAA"):
        try:
            view.resolver.resolve(target, kind)
        except dns.exception.DNSException:
            continue
        return True
    return False


@AREA.error("proxied-mail-host", remedy="turn its proxy off", source="Cloudflare's proxy")
def proxied_mail_host(view: View) -> Found:
    """Cloudflare's proxy speaks HTTP only, so a mail host behind it gets no mail."""
    for domain in view.site.domains:
        for host in mail_exchangers(view.site, domain):
            for record in view.by_name.get(host, ()):
                if record.proxied:
                    yield f"{host} {record.type}", "is proxied, and the proxy does not speak SMTP"
