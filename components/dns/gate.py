"""Nothing of the site's DNS is declared before it has passed the verification."""

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from components.checks.finding import Finding, run
from components.dns.live import RIGHTS, TOKEN, RefusedError, SilentError, read_zone
from components.dns.records import zones
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
    compared, errors, notes = _compared(site)
    findings += compared
    if errors := [*(str(finding) for finding in findings if finding.level == "error"), *errors]:
        raise UserError("\n".join(errors))
    age = f"as of {snapshot.taken}, {(today - snapshot.taken).days} days ago" if snapshot.taken else "never looked at"
    reverse = [
        f"{name} has the reverse name {host.reverse_name}, which is accepted" for name, host in site.dns.hosts.items() if host.reverse_name
    ]
    return Advice(tuple(str(finding) for finding in findings), (f"other people's DNS: {age}", *reverse, *notes))


def _compared(site: Site) -> tuple[list[Finding], list[str], list[str]]:
    """Findings, further errors and notes from a look at each live zone.

    A look by ourselves and not through the provider, because it has to come before anything is declared, and a provider's data
    source would make the program's result depend on more than its settings in a render.
    """
    from components.checks.dns import live as rules  # noqa: PLC0415

    findings: list[Finding] = []
    errors: list[str] = []
    notes: list[str] = []
    token = os.environ.get(TOKEN)
    for zone, settings in zones(site).items():
        if settings.cloudflare is None:
            continue
        live = None
        try:
            live = read_zone(zone, settings.cloudflare, token) if token else None
        except RefusedError as refusal:
            errors.append(str(refusal))
        except SilentError as silence:
            notes.append(f"{zone}: not compared with the live zone; Cloudflare cannot be asked now ({silence})")
        if not token:
            notes.append(f"{zone}: not compared with the live zone; there is no {TOKEN} here, and an `up` needs one with {RIGHTS}")
        findings += run((rules.AREA,), rules.LiveZone(site, zone, live))
    return findings, errors, notes
