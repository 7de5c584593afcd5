"""Is it well, and if not, why and what now: every check of the running system."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from components.edge.client import Firewall
from components.errors import UserError
from tools.commands.edge import firewall_of
from tools.commands.shared import stack_option
from tools.doctor.areas import AREAS, checks_for
from tools.doctor.check import Check, Result, Verdict
from tools.doctor.examine import EXIT, examine, exit_code
from tools.doctor.patient import Patient, of_cluster
from tools.offline.stackfile import ROOT, load_stack, site_of

COLOURS = {"ok": "green", "degraded": "yellow", "broken": "bold red", "could not check": "magenta"}
LINES = 6  # of one check, before the rest is only counted
NAMES = [area.name for area in AREAS]


def table(results: Iterable[Result], *, everything: bool) -> Table:
    """A row for each check that is not well, worst first, with what to do; with `everything` also for those that are."""
    found = Table(expand=True)
    for title, share in (("verdict", 0), ("check", 0), ("seen", 3), ("what to do", 2)):
        found.add_column(title, ratio=share or None, overflow="fold")
    by_check: dict[tuple[Check, Verdict], list[str]] = {}
    for result in results:
        seen = result.seen
        by_check.setdefault((result.check, seen.verdict), []).append(f"{seen.about}: {seen.text}" if seen.about else seen.text)
    for (check, verdict), lines in by_check.items():
        if verdict == "ok" and not everything:
            continue
        more = [f"and {len(lines) - LINES} more (JSON=1 lists them)"] if len(lines) > LINES else []
        what = "" if verdict == "ok" else f"{check.remedy}\ndocs/{check.page}"
        found.add_row(f"[{COLOURS[verdict]}]{verdict}[/]", check.id, escape("\n".join(lines[:LINES] + more)), escape(what))
    return found


def _areas(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    areas = tuple(part for part in value.replace(",", " ").split())
    if unknown := set(areas) - set(NAMES):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: the areas are {', '.join(NAMES)}")
    return areas


@click.command()
@stack_option
@click.option("--only", default="", callback=_areas, help=f"areas, with commas between: {', '.join(NAMES)}  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="every result as JSON")
@click.option("--all", "everything", is_flag=True, help="show what is well, too")
@click.option("--key", type=click.Path(path_type=Path), help="file of the private SSH key of the firewall")
def doctor_command(stack: str, only: tuple[str, ...], as_json: bool, everything: bool, key: Path | None) -> None:
    """Checks the running system; changes nothing. Exit code: 0 well, 1 degraded, 2 broken, 3 something could not be checked."""
    loaded = load_stack(ROOT, stack)
    site = site_of(loaded)
    kubectl, inside = of_cluster(site)
    firewall: Firewall | UserError | None = None
    if site.edge.access is not None:
        try:
            firewall = firewall_of(site, loaded, key)
        except UserError as error:
            firewall = error
    patient = Patient(site, kubectl, inside, firewall, tuple(str(address) for address in site.doctor.resolvers))
    checks = checks_for(patient, only)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("looking", total=len(checks))
        results = examine(patient, checks, lambda check: progress.update(task, advance=1, description=check.id))
    if as_json:
        print(json.dumps([_row(result) for result in results], indent=2))
    else:
        _print(results, stack, everything=everything)
    sys.exit(exit_code(results))


def _row(result: Result) -> dict[str, str]:
    check, seen = result.check, result.seen
    return {
        "check": check.id,
        "verdict": seen.verdict,
        "about": seen.about,
        "seen": seen.text,
        "expected": check.expects,
        "meaning": check.meaning,
        "remedy": check.remedy,
        "page": f"docs/{check.page}",
    }


def _print(results: list[Result], stack: str, *, everything: bool) -> None:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    counts = {verdict: sum(result.seen.verdict == verdict for result in results) for verdict in EXIT}
    if everything or counts["ok"] < len(results):
        console.print(table(results, everything=everything))
    console.print(f"{stack}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
