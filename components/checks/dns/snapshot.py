"""Rules for the snapshot of other people's DNS. They come last: by then the other rules have asked."""

from components.checks.dns.resolver import STALE_DAYS
from components.checks.dns.view import View
from components.checks.finding import Area, Found

AREA = Area[View]("snapshot", "what the DNS of others says (snapshots/dns.json)")

_REFRESH = "refresh it with `make dns-snapshot`"


@AREA.warning("unknown-names", remedy=_REFRESH)
def unknown_names(view: View) -> Found:
    """Records point to names that the snapshot does not have, so their lookups and contents were not judged."""
    if unknown := sorted(view.resolver.unknown):
        names = ", ".join(f"{name} {kind}" for name, kind in unknown)
        yield "snapshots/dns.json", f"no snapshot data for {names}; their DNS lookups were not counted"


@AREA.warning("stale", remedy=_REFRESH)
def stale(view: View) -> Found:
    """Providers change their records, so an old snapshot judges what is no longer there."""
    if view.snapshot.taken and (days := (view.today - view.snapshot.taken).days) > STALE_DAYS:
        yield "snapshots/dns.json", f"is {days} days old"
