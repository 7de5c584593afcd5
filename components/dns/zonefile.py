"""Records as zone files (RFC 1035 section 5), for a DNS host that is not Cloudflare, and to read."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from components.dns.records import Record
from components.settings.types import Fqdn

AUTOMATIC_TTL = 300  # seconds; what Cloudflare answers with its automatic TTL

SERIAL_BASE, SERIAL_EPOCH = 2_100_000_000, datetime(2026, 1, 1, tzinfo=UTC)


def zone_text(zone: Fqdn, records: Iterable[Record], ttl: int | None, now: datetime, comment: Sequence[str]) -> str:
    """The zone file of one zone; records of others are left out. `comment` is what a reader must know, one line each.

    SOA and NS belong to the server of the zone. The file has placeholders for them, because parsers refuse one without.
    """
    rows = [(_relative(record.name, zone), record.type, rdata(record)) for record in records if record.zone == zone]
    width = max((len(owner) for owner, _, _ in rows), default=1)
    lines = [f"{owner:{width}} IN {kind:5} {data}" for owner, kind, data in rows]
    soa = f"ns.invalid. hostmaster.{zone}. {serial(now)} 3600 900 1209600 {AUTOMATIC_TTL}"
    head = [f"{'@':{width}} IN {'SOA':5} {soa}", f"{'@':{width}} IN {'NS':5} ns.invalid."]
    return "\n".join([*(f"; {line}" for line in comment), f"$ORIGIN {zone}.", f"$TTL {ttl or AUTOMATIC_TTL}", *head, *lines, ""])


def serial(now: datetime) -> int:
    """A serial that grows every minute, and begins above every date (YYYYMMDDnn) that a server may have used before.

    Less than 2^31 above 1, so that a server with any of these takes it for newer (RFC 1982).
    """
    return SERIAL_BASE + int((now - SERIAL_EPOCH).total_seconds()) // 60


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
