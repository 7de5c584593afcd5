"""Is it well, and if not, why and what now: every check of the running system."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from components.edge.client import Firewall
from components.errors import UserError
from components.settings.site import Site
from tools.commands.edge import firewall_or_reason
from tools.commands.shared import stack_option
from tools.doctor import edge
from tools.doctor.areas import AREAS, checks_for
from tools.doctor.check import Check, Result, Seen, Verdict
from tools.doctor.examine import EXIT, SECONDS, examine, exit_code
from tools.doctor.inside import SECONDS as INSIDE_SECONDS
from tools.doctor.inside import Errand
from tools.doctor.patient import Patient, from_here, of_cluster
from tools.doctor.vantage import Outpost
from tools.offline.stackfile import ROOT, load_stack, site_of

COLOURS = {"ok": "green", "degraded": "yellow", "broken": "bold red", "could not check": "magenta"}
LINES = 6  # of one check, before the rest is only counted
INTERRUPTED = 130  # as a shell has it; click's own would say that the system is degraded
SETTLED, PAUSE = 30.0, 5.0  # HAProxy finds a server up after three checks, two seconds apart
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


def patient_of(
    site: Site, firewall: Firewall | UserError | None = None, errand: Callable[[], list[tuple[str, Seen]]] | None = None
) -> Patient:
    """The running system of a site. Asks nothing of it yet."""
    kubectl, inside = of_cluster(site)
    vantage = site.doctor.vantage
    return Patient(
        site,
        kubectl,
        inside,
        firewall,
        tuple(str(address) for address in site.doctor.resolvers),
        connect=Outpost(vantage).connect if vantage else from_here,
        outside=vantage is not None,
        errand=errand,
    )


@click.command()
@stack_option
@click.option("--only", default="", callback=_areas, help=f"areas, with commas between: {', '.join(NAMES)}  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="every result as JSON")
@click.option("--all", "everything", is_flag=True, help="show what is well, too")
@click.option("--key", type=click.Path(path_type=Path), help="file of the private SSH key of the firewall")
@click.option("--inside", is_flag=True, help="also what only a pod can see: runs a job in the cluster")
def doctor_command(*, stack: str, only: tuple[str, ...], as_json: bool, everything: bool, key: Path | None, inside: bool) -> None:
    """Checks the running system; changes nothing. Exit code: 0 well, 1 degraded, 2 broken, 3 something could not be checked."""
    loaded = load_stack(ROOT, stack)
    site = site_of(loaded)
    errand = Errand(loaded) if inside else None
    patient = patient_of(site, firewall_or_reason(site, loaded, key), errand)
    try:
        results = _examined(patient, checks_for(patient, only), SECONDS + (INSIDE_SECONDS if inside else 0))
    except KeyboardInterrupt:
        click.echo("stopped; nothing was changed", err=True)
        sys.exit(INTERRUPTED)
    finally:
        if errand:
            errand.end()
    if as_json:
        print(json.dumps([_row(result) for result in results], indent=2))
    else:
        _print(results, stack, everything=everything)
    sys.exit(exit_code(results))


def _examined(patient: Patient, checks: list[Check], seconds: float) -> list[Result]:
    """With progress where someone watches."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("looking", total=len(checks))
        return examine(patient, checks, lambda check: progress.update(task, advance=1, description=check.id), seconds)


@click.command()
@stack_option
def edge_check_command(stack: str) -> None:
    """Connects to every mail service as a client does; an `up` runs it after new redirects. Fails if one is broken.

    What could not be checked is said and does not fail it: without NAT reflection the public address is out of reach from inside.
    """
    check_after_flip(patient_of(site_of(load_stack(ROOT, stack))), stack)


def check_after_flip(patient: Patient, stack: str, seconds: float = SETTLED) -> None:
    """As `edge-check`. What is broken is looked at again for so many seconds, because a reload takes its time. Raises UserError."""
    end = time.monotonic() + seconds
    while exit_code(results := examine(patient, edge.CLIENT, lambda check: None)) == EXIT["broken"] and time.monotonic() < end:
        time.sleep(PAUSE)
    _print(results, stack, everything=False)
    if exit_code(results) == EXIT["broken"]:
        back = f"`make edge-flip-back STACK={stack}` points them to the legacy address"
        if patient.site.edge.target == "legacy" or patient.site.edge.legacy is None:
            back = f"`make edge-health STACK={stack}` shows HAProxy's servers; `make edge-flip-back` needs edge.legacy"
        raise UserError(f"the redirects are written, and a client finds mail broken; {back}. The next `up` looks again")


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
