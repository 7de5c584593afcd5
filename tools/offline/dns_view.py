"""A site's DNS as a reader sees it: a table, and a zone file for each zone."""

from collections.abc import Iterator
from datetime import datetime

from rich.markup import escape
from rich.table import Table

from components.dns.records import internal_records, records, zones
from components.dns.zonefile import AUTOMATIC_TTL, zone_text
from components.settings.dns import Zone
from components.settings.site import Site
from components.settings.types import Fqdn

SHOWN = 72  # characters of a content; the zone file has all of it


def zone_files(site: Site, now: datetime) -> Iterator[tuple[str, str]]:
    """Path and text: `dns/<zone>.zone`, and `dns/<zone>.internal.zone` where clients inside get other addresses."""
    if site.dns is None:
        return
    public, internal = records(site), internal_records(site)
    for zone, settings in zones(site).items():
        yield f"dns/{zone}.zone", zone_text(zone, public, site.dns.ttl, now, _about(zone, settings, "as the Internet sees them"))
        if internal and [r for r in internal if r.zone == zone] != [r for r in public if r.zone == zone]:
            about = _about(zone, settings, "as clients inside see them")
            yield f"dns/{zone}.internal.zone", zone_text(zone, internal, site.dns.ttl, now, about)


def _about(zone: Fqdn, settings: Zone, view: str) -> tuple[str, ...]:
    others = f"the {settings.other_records} other" if settings.other_records else "all other"
    return (
        f"The mail records of {zone}, {view}. Ours only: merge them into the zone that your server has.",
        f"Loaded as the whole zone, this file would hide {others} records. SOA and NS are placeholders.",
    )


def dns_table(site: Site) -> Table:
    """Every record with the key that adoption knows it by."""
    table = Table(title="DNS", title_justify="left", box=None, pad_edge=False)
    for column in ("zone", "key", "name", "type", "content", "ttl"):
        table.add_column(column, overflow="fold")
    ttl = str(site.dns.ttl or AUTOMATIC_TTL) if site.dns else ""
    for record in records(site):
        content = record.content if record.priority is None else f"{record.priority} {record.content}"
        shown = content if len(content) <= SHOWN else f"{content[: SHOWN - 1]}…"
        cells = (record.zone, record.key, record.name, record.type, shown + (" (proxied)" if record.proxied else ""), ttl)
        table.add_row(*(escape(cell) for cell in cells))
    return table
