"""Everything that a preview says: all areas in their order, and the one way to run them.

Used by the program, the render and the page of codes. To add a rule, write a function with a docstring in its area's file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

from components.checks import (
    acknowledged,
    adoption,
    bans,
    cluster,
    credentials,
    domains,
    edge,
    jobs,
    mail,
    monitoring,
    objects,
    placeholders,
    references,
    settings,
    values,
    webmail,
)
from components.checks.finding import Area, Finding, Level, Rule, errors_first, run
from components.errors import UserError
from components.settings.parse import InvalidSettings, parse_site
from components.settings.site import Site

SNAPSHOT = Path(__file__).parents[2] / "snapshots" / "dns.json"
SITE_AREAS: tuple[Area[Site], ...] = (
    cluster.AREA,
    domains.AREA,
    mail.AREA,
    edge.AREA,
    bans.AREA,
    jobs.AREA,
    monitoring.AREA,
    webmail.AREA,
    credentials.AREA,
    placeholders.AREA,
)
OBJECT_AREAS = (objects.AREA, references.AREA, values.AREA)
SPELT_OUT = 2  # warnings of a kind that have a line each; more of them share one
NAMED = 5  # settings that such a line names before it counts the rest


class Refused(UserError):  # noqa: N818 - what happened, not a kind of error
    """Something must not be deployed; the text has a line for each finding."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = list(findings)
        super().__init__("\n".join(text for _, text in lines(self.findings)))


def read_site(text: str) -> Site:
    """The settings from JSON text, if they can be used: each value is valid, and so are all together. Raises Refused."""
    try:
        site = parse_site(text)
    except InvalidSettings as invalid:
        raise Refused(run([settings.AREA], invalid)) from None
    refuse(_marked(site, run(SITE_AREAS, site)))
    return site


def refuse(findings: Iterable[Finding]) -> None:
    """Raise Refused for the errors among the findings."""
    if errors := [finding for finding in findings if finding.level == "error" and not finding.acknowledged]:
        raise Refused(errors)


def judge(site: Site) -> list[Finding]:
    """All that is said of a site that `read_site` accepted: its settings, its DNS records, its acknowledgements; errors first."""
    found = _marked(site, [*run(SITE_AREAS, site), *(_dns_findings(site) if site.dns else ())])
    known = _rules(_site_and_object_areas())
    if site.acknowledged.keys() - known.keys():
        known |= _rules(_dns_areas())
    return errors_first([*found, *acknowledged.AREA.run(acknowledged.Ledger(site.acknowledged, found, known))])


def every_area() -> list[Area]:
    """All areas, in the order of the page of codes."""
    return [settings.AREA, *SITE_AREAS, *_dns_areas(), adoption.AREA, edge.MOVES, *OBJECT_AREAS, acknowledged.AREA]


def lines(findings: Iterable[Finding]) -> Iterator[tuple[Level, str]]:
    """Findings as a person reads them: a line for each error, one line for many warnings of a kind, one for what is acknowledged."""
    groups: dict[str, list[Finding]] = {}
    consented: dict[str, str] = {}
    for finding in findings:
        if finding.acknowledged:
            consented[finding.code] = finding.acknowledged
        else:
            groups.setdefault(finding.code, []).append(finding)
    for group in groups.values():
        if group[0].level == "error" or len(group) <= SPELT_OUT:
            for finding in group:
                yield finding.level, str(finding)
        else:
            named = ", ".join(finding.setting for finding in group[1 : NAMED + 1])
            more = f", and {len(group) - NAMED - 1} more" if len(group) > NAMED + 1 else ""
            yield group[0].level, f"{group[0]} (also {named}{more})"
    if consented:
        yield "note", f"acknowledged: {'; '.join(f'{code} ({reason})' for code, reason in consented.items())}"


def _marked(site: Site, findings: Iterable[Finding]) -> list[Finding]:
    """The findings, with the site's reason at each that it acknowledges."""
    return [replace(finding, acknowledged=site.acknowledged.get(finding.code, "") if finding.consent else "") for finding in findings]


def _dns_areas() -> tuple[Area, ...]:
    # Here, because the libraries behind it take half a second to import, and a site without DNS needs none of them.
    from components.checks.dns import live  # noqa: PLC0415
    from components.checks.dns.verify import AREAS  # noqa: PLC0415

    return (*AREAS, live.AREA)


def _dns_findings(site: Site) -> list[Finding]:
    from components.checks.dns import live  # noqa: PLC0415
    from components.checks.dns.resolver import read_snapshot  # noqa: PLC0415
    from components.checks.dns.verify import verify  # noqa: PLC0415

    try:
        snapshot = read_snapshot(SNAPSHOT)
    except ValueError:
        name = f"{SNAPSHOT.parent.name}/{SNAPSHOT.name}"
        raise UserError(f"{name}: is not a valid snapshot; regenerate it with `make dns-snapshot`") from None
    compared = (finding for zone in live.look(site) for finding in live.AREA.run(zone))
    return [*verify(site, snapshot, date.today()), *compared]


def _site_and_object_areas() -> list[Area]:
    return [settings.AREA, *SITE_AREAS, adoption.AREA, edge.MOVES, *OBJECT_AREAS, acknowledged.AREA]


def _rules(areas: Iterable[Area]) -> dict[str, Rule]:
    return {rule.code: rule for area in areas for rule in area.rules}
