"""`pulumi preview` and `pulumi up` with everything they need set up first; without an engine, a preview is a render."""

import argparse
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from components.edge.client import AgentError
from components.edge.ssh import TransportError
from components.settings.parse import SettingsError, parse_site
from components.settings.site import KEY
from tools.edge import EdgeError, firewall_of, plan
from tools.failure import print_errors
from tools.program import ROOT, ProgramError
from tools.pulumi_cli import DEV, EngineError, environment, find_engine, select_stack
from tools.render import RenderError, render
from tools.stackfile import Stack, StackFileError, load_stack


def show_firewall(stack: Stack) -> None:
    """What an up would change on the live firewall. The engine cannot show that: it asks no provider for a first creation in a preview."""
    site = parse_site(stack.config.get(KEY, "{}"))
    if site.edge.ssh is None:
        return
    print("on the firewall:")
    try:
        plan(site, firewall_of(site, stack, None), Console(highlight=False, width=160))
    except (EdgeError, AgentError, TransportError, OSError) as error:
        print(f"not asked: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("preview", "up"))
    parser.add_argument("--stack", default=DEV)
    parser.add_argument("--refresh", action="store_true", help="ask what there really is before comparing")
    parser.add_argument("--out", type=Path, help="folder for the artefacts where a preview falls back to a render")
    options = parser.parse_args()
    try:
        stack = load_stack(ROOT, options.stack)
        try:
            engine = find_engine()
        except EngineError as error:
            if options.action == "up":
                raise
            print(f"no engine, so this is a render of the same program: {error}")
            render(ROOT, options.stack, options.out or Path("build") / options.stack, Console(highlight=False, width=160))
            return 0
        variables = environment(options.stack)
        select_stack(engine, options.stack, variables)
        if options.action == "preview":
            show_firewall(stack)
    except (EngineError, StackFileError, SettingsError, ProgramError, RenderError) as error:
        print_errors(error)
        return 1
    arguments = ["preview", "--diff", "--non-interactive"] if options.action == "preview" else ["up"]
    arguments += ["--refresh"] if options.refresh else []
    return subprocess.run([engine, *arguments, "--stack", options.stack], cwd=ROOT, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
