"""The firewall by hand: what would change, rolling back to the legacy address, the state of HAProxy's servers."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from components.edge.client import Firewall, Kind
from components.edge.connection import Connection
from components.edge.desired import haproxy_set, rule_set
from components.edge.differences import differences
from components.errors import UserError
from components.settings.edge import SSH_KEY
from components.settings.site import KEY, Site
from tools.commands.shared import CONSOLE, stack_option
from tools.offline.stackfile import ROOT, Stack, load_stack, site_of
from tools.pulumi_cli import EngineError, environment, find_engine

CONFIG_SECONDS = 60  # a backend in the cloud may be asked for the stack's key


def private_key(stack: Stack, ssh_key_file: Path | None) -> str | None:
    """The key's text, or None to leave it to the settings' key file or the SSH agent."""
    if ssh_key_file:
        try:
            return ssh_key_file.expanduser().read_text("utf-8")
        except OSError as error:
            raise UserError(f"KEY: {ssh_key_file}: {error.strerror}") from None
    if SSH_KEY not in stack.config:
        return None
    if SSH_KEY not in stack.secret_keys:
        raise UserError(f"{SSH_KEY}: is in the stack file in plain text; set it again with `pulumi config set --secret`")
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
        raise UserError(f"{SSH_KEY}: is encrypted, and no engine can read it ({error}); name the key's file with KEY=…") from None
    except subprocess.SubprocessError:
        raise UserError(f"{SSH_KEY}: `pulumi config get` cannot read it; name the key's file with KEY=…") from None
    return result.stdout


def sets(site: Site) -> tuple[tuple[Kind, Any], ...]:
    """What the firewall is to hold, by kind."""
    return ("haproxy", haproxy_set(site)), ("rules", rule_set(site))


def plan(site: Site, firewall: Firewall, console: Console) -> bool:
    """Print what an apply would change, line by line, and return whether it would. Raises AgentError where it would be refused."""
    answers = [firewall.call("plan", kind, wanted) for kind, wanted in sets(site)]
    for answer in answers:
        _show(answer, console)
    return any(answer["changed"] for answer in answers)


def flip_back(site: Site, firewall: Firewall, console: Console) -> None:
    """Point the redirects and their pass rules to the legacy address, in one step."""
    if site.edge.legacy is None:
        raise UserError(
            f"{KEY}.edge.legacy: is not set, so there is no LoadBalancer Service to roll back to; set its address and run `make up` first"
        )
    back = site.model_copy(update={"edge": site.edge.model_copy(update={"target": "legacy", "remove_legacy_alias": False})})
    answer = firewall.call("apply", "rules", rule_set(back))
    _show(answer, console)
    console.print(
        "the redirects now point to the legacy address, which Pulumi does not know; set edge.target to legacy before the next `make up`"
    )


def health(site: Site, firewall: Firewall, console: Console) -> None:
    """Print the state of each server as HAProxy sees it, and what is wrong on the firewall."""
    for kind, wanted in sets(site):
        answer = firewall.call("health", kind, wanted)
        for pool, servers in dict(answer["servers"] or {}).items():
            for server, state in servers.items():
                console.print(f"{pool} {server}: {state}", markup=False)
        _warn(answer, console)


def _show(answer: dict[str, Any], console: Console) -> None:
    lines = differences(answer["before"], answer["after"])
    if not lines and answer["changed"]:
        lines = ["~ the configuration is correct but not active: HAProxy or pf must be reloaded"]
    for line in lines or ["nothing to change"]:
        console.print(line, markup=False, soft_wrap=True)
    _warn(answer, console)


def _warn(answer: dict[str, Any], console: Console) -> None:
    for warning in answer["warnings"]:
        console.print(f"! {warning}", markup=False, soft_wrap=True)


def firewall_of(site: Site, stack: Stack, ssh_key_file: Path | None) -> Firewall:
    """The stack's firewall, not yet connected to. Raises UserError where the settings name none, or its key cannot be read."""
    if site.edge.ssh and site.edge.access is None:
        raise UserError(f"{KEY}.edge.ssh.host_key: is a placeholder; `ssh-keyscan -t ed25519 <firewall>` prints the firewall's own")
    if site.edge.access is None:
        raise UserError(f"{KEY}.edge.ssh: is not set, so this stack has no firewall to talk to")
    return Firewall(Connection.of(site, site.edge.access), private_key(stack, ssh_key_file))


def firewall_or_reason(site: Site, stack: Stack, ssh_key_file: Path | None) -> Firewall | UserError | None:
    """As `firewall_of`; None where the site has no firewall, the error where it has one that cannot be asked."""
    if site.edge.access is None:
        return None
    try:
        return firewall_of(site, stack, ssh_key_file)
    except UserError as error:
        return error


def _options(command: Callable[..., None]) -> Callable[..., None]:
    return stack_option(click.option("--key", type=click.Path(path_type=Path), help="file of the private SSH key")(command))


def _call(action: Callable[[Site, Firewall, Console], object], stack_name: str, key: Path | None) -> None:
    stack = load_stack(ROOT, stack_name)
    site = site_of(stack)
    action(site, firewall_of(site, stack, key), CONSOLE)


@click.command()
@_options
def edge_plan_command(stack: str, key: Path | None) -> None:
    """What an `up` would change on the firewall, asked of the firewall itself."""
    _call(plan, stack, key)


@click.command()
@_options
def edge_flip_back_command(stack: str, key: Path | None) -> None:
    """Points the redirects back to the legacy address, without Pulumi's state."""
    _call(flip_back, stack, key)


@click.command()
@_options
def edge_health_command(stack: str, key: Path | None) -> None:
    """The state of each server, as HAProxy on the firewall sees it."""
    _call(health, stack, key)
