"""`pulumi preview` and `pulumi up` with everything they need set up first; without an engine, a preview is a render."""

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from components.errors import UserError
from components.settings.site import Site
from tools.adoption import comparison, moved_mail
from tools.cluster import (
    UnreachableError,
    absent_namespaces,
    check_cluster,
    existing,
    keeping,
    leftovers,
    mortal_volumes,
    removal,
    second_servers,
)
from tools.commands.edge import firewall_of, plan
from tools.commands.render import render
from tools.commands.shared import CONSOLE, stack_option
from tools.offline.stackfile import ROOT, Stack, load_stack, site_of
from tools.plan import Plan, errors, label, protection, read_plan, summary, without_interruption
from tools.pulumi_cli import EngineError, environment, find_engine, init_stack, resources_in_state, select_stack

refresh_option = click.option("--refresh", is_flag=True, help="ask cluster, firewall and DNS what there really is before comparing")
yes_option = click.option("--yes", is_flag=True, help="do not ask; for use without a terminal")


def need_answer(yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on; YES=1 behind the `make` command goes ahead without asking")


def show_firewall(stack: Stack) -> None:
    """What an `up` would change on the live firewall. The engine cannot show that: a first creation is never previewed by its provider."""
    site = site_of(stack)
    if site.edge.access is None:
        return
    print("on the firewall:")
    try:
        plan(site, firewall_of(site, stack, None), CONSOLE)
    except UserError as error:
        print(f"not asked: {error}")


def run_engine(engine: str, stack: str, *arguments: str, keep: bool = False) -> tuple[int, str, Plan]:
    """Exit code, what it printed where that is kept instead of shown, and what its event log says."""
    colour = "always" if sys.stdout.isatty() else "never"
    with tempfile.TemporaryDirectory() as folder:
        log, kept = Path(folder, "events"), Path(folder, "output")
        log.touch()
        with (
            kept.open("w") as output,
            subprocess.Popen(
                [engine, *arguments, "--non-interactive", "--color", colour, "--stack", stack, "--event-log", str(log)],
                cwd=ROOT,
                env=environment(stack) | {"PULUMI_DEBUG_COMMANDS": "true"},  # without it there is no --event-log
                stdout=output if keep else None,
                stderr=subprocess.PIPE,
                text=True,
            ) as running,
        ):
            for line in without_interruption(running.stderr or ()):
                print(line, end="", file=sys.stderr, flush=True)
        return running.returncode, kept.read_text("utf-8"), read_plan(log)


def explained(engine: str, stack: str, plan: Plan) -> list[str]:
    """The errors of a plan, by the names that objects have in the cluster: one that has left the program is only in the state."""
    if not plan.complaints:
        return []
    state = resources_in_state(engine, stack)
    stored = {resource["urn"]: label(resource["urn"], resource.get("inputs", {})) for resource in state}
    return list(errors(plan, stored, {resource["urn"] for resource in state if resource.get("protect")}))


def preview(engine: str, stack: Stack, *, refresh: bool) -> Plan:
    """Shows what an `up` would do. Raises UserError where the engine or the live cluster forbids it."""
    site = site_of(stack)
    reachable = cluster_answers(site)
    show_firewall(stack)
    sys.stdout.flush()
    code, diff, planned = run_engine(engine, stack.name, "preview", "--diff", *(["--refresh"] if refresh else []), keep=True)
    print("summary:")
    for line in summary(planned):
        print(f"  {line}")
    if table := comparison(planned.of("import"), planned.of("update")):
        CONSOLE.print(table)
    print(diff)
    complaints = explained(engine, stack.name, planned)
    if reachable and not complaints:
        complaints = list(look(site, planned))
    sys.stdout.flush()
    if complaints or code:
        raise UserError("\n".join(complaints) or f"pulumi preview ended with {code}")
    return planned


def cluster_answers(site: Site) -> bool:
    """Whether the site has a cluster that can be asked; says why not."""
    try:
        check_cluster(site)
    except UnreachableError as error:
        print(f"warning: {error}\nwarning: what follows compares with the state alone, so `unchanged` says nothing about the cluster")
        return False
    return site.cluster.context is not None


def look(site: Site, planned: Plan) -> list[str]:
    """What an `up` would trip over in the live cluster; prints what a predecessor left in it."""
    there = existing(site, [step.new for step in planned.of("create") if "kind" in step.new and "metadata" in step.new])
    remade = [reference for reference in there if reference.startswith(("ConfigMap/", "Secret/", "ExternalSecret/"))]
    found = []
    if adoptable := [reference for reference in there if reference not in remade]:
        found += ["these exist in the cluster, and this stack does not know them; an `up` would stop half-way. To take them over, add:"]
        found += ["  adopt:", *(f"    - {reference}" for reference in adoptable)]
    if remade:
        found += ["these are never taken over but made anew; remove them first (the Secret of an ExternalSecret stays):"]
        found += [f"  {removal(site, remade, '--cascade=orphan')}"]
    if absent := absent_namespaces(site, planned.declared):
        found += [
            f"the cluster has no namespace {name}, and objects of this stack go there; create it, or change the setting" for name in absent
        ]
    found += moved_mail(planned.of("import"), planned.of("update"))
    found += second_servers(site, planned.declared)
    if mortal := mortal_volumes(site):
        print("warning: these volumes are deleted together with their claims; this keeps them whatever happens to a claim:")
        print(f"  {keeping(site, mortal)}")
    if left := leftovers(site, planned.declared):
        print("left by the predecessor; once the new pod is ready nothing uses it, and this removes it:")
        print(f"  {removal(site, left)}")
    return found


@click.command()
@stack_option
@refresh_option
@click.option("--out", type=click.Path(path_type=Path), help="folder for the artefacts of a render  [default: build/<stack>]")
def preview_command(stack: str, refresh: bool, out: Path | None) -> None:
    """What an `up` would change; a render where the engine cannot be installed."""
    loaded = load_stack(ROOT, stack)
    try:
        engine = find_engine()
    except EngineError as error:
        print(f"no engine, so this is a render of the same program: {error}")
        render(ROOT, stack, out or Path("build") / stack, CONSOLE)
        return
    select_stack(engine, stack)
    preview(engine, loaded, refresh=refresh)


@click.command()
@stack_option
@refresh_option
@yes_option
def up_command(stack: str, refresh: bool, yes: bool) -> None:
    """Deploys the stack: a preview, a question, then `pulumi up`."""
    need_answer(yes)
    loaded = load_stack(ROOT, stack)
    engine = find_engine()
    select_stack(engine, stack)
    check_cluster(site_of(loaded))
    planned = preview(engine, loaded, refresh=refresh)
    if not planned.by_word and not refresh:
        return
    if not yes:
        click.confirm("Do this?", abort=True)
    code, _, done = run_engine(engine, stack, "up", "--yes", "--skip-preview", *(["--refresh"] if refresh else []))
    if code:
        raise UserError("\n".join(explained(engine, stack, done)) or f"pulumi up ended with {code}")


@click.command()
@stack_option
@yes_option
def destroy_command(stack: str, yes: bool) -> None:
    """Retires the stack: removes it from cluster, firewall and DNS, once nothing of it is protected any more."""
    need_answer(yes)
    site = site_of(load_stack(ROOT, stack))
    engine = find_engine()
    select_stack(engine, stack)
    check_cluster(site)
    # All of them: the engine names one, and the next one after that is out of the way.
    if held := {r["urn"]: label(r["urn"], r.get("inputs", {})) for r in resources_in_state(engine, stack) if r.get("protect")}:
        raise UserError("\n".join(protection(held)))
    code, diff, done = run_engine(engine, stack, "destroy", "--preview-only", "--diff", keep=True)
    if not code:
        print(diff)
        if not yes:
            click.confirm("Do this?", abort=True)
        code, _, done = run_engine(engine, stack, "destroy", "--yes", "--skip-preview")
    if code:
        raise UserError("\n".join(explained(engine, stack, done)) or f"pulumi destroy ended with {code}")


@click.command()
@stack_option
def stack_init_command(stack: str) -> None:
    """Makes the stack's state where PULUMI_BACKEND_URL says, once."""
    load_stack(ROOT, stack)
    for line in init_stack(find_engine(), stack):
        print(line)
