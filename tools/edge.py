"""The firewall by hand: what would change there, the way back to the legacy address, the state of HAProxy's servers."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from components.edge.agent import agent_digest
from components.edge.client import AgentError, Firewall, Kind
from components.edge.connection import SSH_KEY, Connection
from components.edge.desired import haproxy_set, rule_set
from components.edge.differences import differences
from components.edge.haproxy_cfg import haproxy_cfg
from components.edge.ssh import TransportError
from components.settings.parse import SettingsError, parse_site
from components.settings.site import KEY, Site
from tools.failure import print_errors
from tools.program import ROOT
from tools.pulumi_cli import EngineError, environment, find_engine
from tools.stackfile import Stack, StackFileError, load_stack

CONFIG_SECONDS = 60  # a backend in the cloud may be asked for the stack's key


class EdgeError(Exception):
    """Nothing was done; the text says why."""


def edge_artefacts(site: Site) -> Iterator[tuple[str, str]]:
    """Path and text: what the firewall should hold, and the configuration that its HAProxy package makes of it."""
    wanted = {"agent": agent_digest(), "haproxy": haproxy_set(site), "rules": rule_set(site)}
    yield "edge/haproxy.json", json.dumps(wanted, indent=2) + "\n"
    yield "edge/haproxy.cfg", haproxy_cfg(haproxy_set(site))


def edge_summary(site: Site, console: Console) -> None:
    """The plan against a firewall that holds nothing yet."""
    console.print("firewall, if it were empty:", markup=False)
    for wanted in (haproxy_set(site), rule_set(site)):
        for line in differences({}, wanted):
            console.print(f"  {line}", markup=False, soft_wrap=True)


def private_key(stack: Stack, ssh_key_file: Path | None) -> str | None:
    """The key's text, or None to leave it to the settings' key file or the SSH agent."""
    if ssh_key_file:
        try:
            return ssh_key_file.expanduser().read_text("utf-8")
        except OSError as error:
            raise EdgeError(f"KEY: {ssh_key_file}: {error.strerror}") from None
    if SSH_KEY not in stack.config:
        return None
    if SSH_KEY not in stack.secret_keys:
        raise EdgeError(f"{SSH_KEY}: stands in the stack file in the open; set it again with `pulumi config set --secret`")
    try:
        result = subprocess.run(
            [find_engine(), "--non-interactive", "config", "get", SSH_KEY, "--stack", stack.name],
            cwd=ROOT,
            env=environment(stack.name),
            capture_output=True,
            text=True,
            timeout=CONFIG_SECONDS,
            check=True,
        )
    except EngineError as error:
        raise EdgeError(f"{SSH_KEY}: is encrypted, and there is no engine to read it ({error}); name the key's file with KEY=…") from None
    except subprocess.SubprocessError:
        raise EdgeError(f"{SSH_KEY}: `pulumi config get` cannot read it; name the key's file with KEY=…") from None
    return result.stdout


def plan(site: Site, firewall: Firewall, console: Console) -> None:
    """Print what an apply would change, line by line. Raises AgentError where it would be refused."""
    sets: tuple[tuple[Kind, Any], ...] = (("haproxy", haproxy_set(site)), ("rules", rule_set(site)))
    for kind, wanted in sets:
        answer = firewall.call("plan", kind, wanted)
        _show(answer, console)


def flip_back(site: Site, firewall: Firewall, console: Console) -> None:
    """Lead the redirects and their pass rules to the legacy address, in one step."""
    if site.legacy is None:
        raise EdgeError(f"{KEY}.legacy: is not set, so there is no LoadBalancer Service to go back to; set its address and `make up` first")
    back = site.model_copy(update={"firewall": site.firewall.model_copy(update={"target": "legacy", "remove_legacy_alias": False})})
    answer = firewall.call("apply", "rules", rule_set(back))
    _show(answer, console)
    console.print(
        "the redirects lead to the legacy address, and Pulumi does not know; set firewall.target to legacy before the next `make up`"
    )


def health(site: Site, firewall: Firewall, console: Console) -> None:
    """Print the state of each server as HAProxy sees it."""
    for pool, servers in firewall.call("health", "haproxy", haproxy_set(site))["servers"].items():
        for server, state in servers.items():
            console.print(f"{pool} {server}: {state}", markup=False)


def _show(answer: dict[str, Any], console: Console) -> None:
    lines = differences(answer["before"], answer["after"])
    if not lines and answer["changed"]:
        lines = ["~ the configuration is as it should be, and not in force: HAProxy or pf has to be loaded again"]
    for line in lines or ["nothing to change"]:
        console.print(line, markup=False, soft_wrap=True)


def firewall_of(site: Site, stack: Stack, ssh_key_file: Path | None) -> Firewall:
    """The stack's firewall, not yet connected to. Raises EdgeError where the settings name none, or its key cannot be read."""
    if site.firewall.ssh is None:
        raise EdgeError(f"{KEY}.firewall.ssh: is not set, so this stack has no firewall to talk to")
    return Firewall(Connection.of(site, site.firewall.ssh), private_key(stack, ssh_key_file))


COMMANDS = {"plan": plan, "flip-back": flip_back, "health": health}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--stack", default="dev")
    parser.add_argument("--key", type=Path, help="file of the private SSH key")
    options = parser.parse_args()
    try:
        stack = load_stack(ROOT, options.stack)
        site = parse_site(stack.config.get(KEY, "{}"))
        COMMANDS[options.command](site, firewall_of(site, stack, options.key), Console(highlight=False, width=160))
    except (StackFileError, SettingsError, EdgeError, AgentError, TransportError, OSError) as error:
        print_errors(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
