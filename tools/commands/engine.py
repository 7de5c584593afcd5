"""`pulumi preview` and `pulumi up` with everything they need set up first; without an engine, a preview is a render."""

import subprocess
import sys
from pathlib import Path

import click

from components.errors import UserError
from tools.commands.edge import firewall_of, plan
from tools.commands.render import render
from tools.commands.shared import CONSOLE, stack_option
from tools.offline.stackfile import ROOT, Stack, load_stack, site_of
from tools.pulumi_cli import EngineError, environment, find_engine, select_stack

refresh_option = click.option("--refresh", is_flag=True, help="ask cluster, firewall and DNS what there really is before comparing")


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


def run_engine(engine: str, stack: str, variables: dict[str, str], *arguments: str) -> None:
    """Ends this process with the engine's exit code."""
    sys.exit(subprocess.run([engine, *arguments, "--stack", stack], cwd=ROOT, env=variables, check=False).returncode)


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
    variables = environment(stack)
    select_stack(engine, stack, variables)
    show_firewall(loaded)
    run_engine(engine, stack, variables, "preview", "--diff", "--non-interactive", *(["--refresh"] if refresh else []))


@click.command()
@stack_option
@refresh_option
def up_command(stack: str, refresh: bool) -> None:
    """`pulumi up`: deploys the stack."""
    load_stack(ROOT, stack)
    engine = find_engine()
    variables = environment(stack)
    select_stack(engine, stack, variables)
    run_engine(engine, stack, variables, "up", *(["--refresh"] if refresh else []))
