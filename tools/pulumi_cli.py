"""The `pulumi` CLI and what it needs around it: found or installed, with its backend and passphrase, on a stack that exists."""

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

from pulumi.automation import PulumiCommand
from semver import VersionInfo

from components.errors import UserError
from tools.offline.stackfile import ROOT

DEV = "dev"  # the one stack that is given a backend and a passphrase; every other brings its own
DOWNLOAD_TIMEOUT = 30.0  # seconds without data from the download site


class EngineError(UserError):
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


def select_stack(engine: str, stack: str) -> None:
    """Make sure that the stack exists where its state is kept; only dev is created without being asked."""
    result = _run(engine, stack, "select", stack, *(["--create"] if stack == DEV else []))
    if result.returncode:
        raise EngineError(
            f"{result.stderr.strip().removeprefix('error: ')}\nstack {stack}: set PULUMI_BACKEND_URL and PULUMI_CONFIG_PASSPHRASE (or your "
            f"secrets provider), and create the stack once with `make stack-init STACK={stack}`"
        )


def init_stack(engine: str, stack: str) -> Iterator[str]:
    """Create the stack, and say what was added to its file.

    The CLI writes the whole file anew: comments move, folded texts become one line. So only its own keys are taken from it.
    """
    file = ROOT / f"Pulumi.{stack}.yaml"
    before = file.read_text("utf-8")
    try:
        result = _run(engine, stack, "init", stack)
        added = _own_keys(file.read_text("utf-8")) - _own_keys(before)
    finally:
        file.write_text(before, "utf-8")
    if result.returncode:
        raise EngineError(result.stderr.strip().removeprefix("error: "))
    yield f"stack {stack} is there"
    if added:
        file.write_text("\n".join([before.rstrip("\n"), *sorted(added)]) + "\n", "utf-8")
        yield f"{file.name}: {', '.join(sorted(line.split(':')[0] for line in added))} added at the end; commit it with the rest"


def resources_in_state(engine: str, stack: str) -> list[dict[str, Any]]:
    """What the state holds of each resource; empty where it cannot be read."""
    result = _run(engine, stack, "export", "--stack", stack)
    return json.loads(result.stdout)["deployment"].get("resources", []) if result.returncode == 0 else []


def _own_keys(text: str) -> set[str]:
    """The lines that the CLI keeps its encryption in."""
    return {line for line in text.splitlines() if line.startswith(("encryptionsalt:", "encryptedkey:", "secretsprovider:"))}


def _run(engine: str, stack: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [engine, "--non-interactive", "stack", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(stack), capture_output=True, text=True, check=False)
