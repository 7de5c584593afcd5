"""`pulumi preview` and `pulumi up` with everything they need set up first; without an engine, a preview is a render."""

import argparse
import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from pulumi.automation import PulumiCommand
from rich.console import Console
from semver import VersionInfo

from components.edge.client import AgentError
from components.edge.ssh import TransportError
from components.settings.parse import SettingsError, parse_site
from components.settings.site import KEY
from tools.edge import EdgeError, firewall_of, plan
from tools.program import ROOT, ProgramError
from tools.render import RenderError, render
from tools.stackfile import Stack, StackFileError, load_stack

DEV = "dev"  # the one stack that is given a backend and a passphrase; every other brings its own
DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte from the download site


class EngineError(Exception):
    """The engine cannot be used; the text says why and what to do."""


def find_engine() -> str:
    """The path of the `pulumi` CLI: on PATH, or put into ~/.pulumi/versions by the SDK's own installer. Raises EngineError."""
    if found := shutil.which("pulumi"):
        return found
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        return PulumiCommand.install(version=VersionInfo.parse(importlib.metadata.version("pulumi"))).command
    except subprocess.CalledProcessError as error:
        raise EngineError(f"the Pulumi installer failed with exit code {error.returncode}") from None
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; a CLI of another version is a RuntimeError
        raise EngineError(f"the Pulumi CLI is not on PATH and cannot be installed ({error})") from None
    finally:
        socket.setdefaulttimeout(before)


def environment(stack: str) -> dict[str, str]:
    """The engine's environment. Only dev gets a backend (a folder of the checkout) and a passphrase (none)."""
    variables = dict(os.environ, PULUMI_SKIP_UPDATE_CHECK="true")
    if stack == DEV:
        state = ROOT / ".state"
        state.mkdir(exist_ok=True)
        variables.setdefault("PULUMI_BACKEND_URL", state.as_uri())
        variables.setdefault("PULUMI_CONFIG_PASSPHRASE", "")
    return variables


def select_stack(engine: str, stack: str, variables: dict[str, str]) -> None:
    """Make sure that the stack exists where its state is kept; only dev is created without being asked."""
    command = [engine, "--non-interactive", "stack", "select", stack, *(["--create"] if stack == DEV else [])]
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    if result.returncode:
        raise EngineError(
            f"{result.stderr.strip().removeprefix('error: ')}\nstack {stack}: set PULUMI_BACKEND_URL and PULUMI_CONFIG_PASSPHRASE (or your "
            f"secrets provider), and make the stack once with `pulumi stack init {stack}`"
        )


def show_firewall(stack: Stack) -> None:
    """What an up would change on the live firewall. The engine cannot show that: it asks no provider for a first creation in a preview."""
    site = parse_site(stack.config.get(KEY, "{}"))
    if site.firewall.ssh is None:
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
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 1
    arguments = ["preview", "--diff", "--non-interactive"] if options.action == "preview" else ["up"]
    return subprocess.run([engine, *arguments, "--stack", options.stack], cwd=ROOT, env=variables, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
