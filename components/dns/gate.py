"""Nothing of the site's DNS is declared before it has passed the verification."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from components.errors import UserError
from components.settings.site import Site

SNAPSHOT = Path(__file__).parents[2] / "snapshots" / "dns.json"


@dataclass(frozen=True)
class Advice:
    """What a preview says about the site's DNS: doubts, and what holds."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def verified(site: Site) -> Advice:
    """Raises UserError with a line for each record that must not be published."""
    if site.dns is None:
        return Advice()
    # Here, because the libraries behind it take half a second to import, and a site without DNS needs none of them.
    from components.checks.dns.resolver import read_snapshot  # noqa: PLC0415
    from components.checks.dns.verify import verify  # noqa: PLC0415

    today = date.today()
    try:
        snapshot = read_snapshot(SNAPSHOT)
    except ValueError:
        raise UserError(f"{SNAPSHOT.parent.name}/{SNAPSHOT.name}: is no snapshot; make it again with `make dns-snapshot`") from None
    findings = verify(site, snapshot, today)
    if errors := [str(finding) for finding in findings if finding.level == "error"]:
        raise UserError("\n".join(errors))
    age = f"as of {snapshot.taken}, {(today - snapshot.taken).days} days ago" if snapshot.taken else "never looked at"
    reverse = [
        f"{name} has the reverse name {host.reverse_name}, which is accepted" for name, host in site.dns.hosts.items() if host.reverse_name
    ]
    return Advice(tuple(str(finding) for finding in findings), (f"other people's DNS: {age}", *reverse))
