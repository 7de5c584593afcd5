"""Records as zone files (RFC 1035 section 5), for a DNS host that is not Cloudflare and for the eyes."""

from collections.abc import Iterable

from components.dns.records import Record
from components.settings.types import Fqdn

AUTOMATIC_TTL = 300  # seconds; what Cloudflare answers with its automatic TTL


def zone_text(zone: Fqdn, records: Iterable[Record], ttl: int | None) -> str:
    """The zone file of one zone; records of others are left out.

    SOA and NS belong to whoever serves the zone. They stand in for it here, because a file without them is none.
    """
    rows = [
        ("@", "SOA", f"ns.invalid. hostmaster.{zone}. 1 3600 900 1209600 {AUTOMATIC_TTL}"),
        ("@", "NS", "ns.invalid."),
        *((_relative(record.name, zone), record.type, rdata(record)) for record in records if record.zone == zone),
    ]
    width = max(len(owner) for owner, _, _ in rows)
    lines = [f"{owner:{width}} IN {kind:5} {data}" for owner, kind, data in rows]
    return "\n".join([f"$ORIGIN {zone}.", f"$TTL {ttl or AUTOMATIC_TTL}", *lines, ""])


def rdata(record: Record) -> str:
    """The record's data in presentation form, names with their trailing dot."""
    if record.type in {"MX", "SRV"}:
        return f"{record.priority} {_absolute(record.content)}"
    if record.type == "CNAME":
        return _absolute(record.content)
    return record.content


def _absolute(content: str) -> str:
    return content if content.endswith(".") else f"{content}."


def _relative(name: str, zone: Fqdn) -> str:
    return "@" if name == zone else name.removesuffix(f".{zone}")
