"""What the checks look at: the site as its settings describe it, and the ways to ask the running system."""

import json
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from components.edge.client import Firewall
from components.errors import UserError
from components.names import MAIL_SERVER
from components.settings.site import Site
from tools.cluster import kubectl, reason

RAN = "command terminated with exit code"
SECONDS = 20  # for one answer of anything that is asked


class Run(Protocol):
    """Runs a command; raises UserError where that is impossible. A command that fails is not an error."""

    def __call__(self, *command: str) -> subprocess.CompletedProcess[str]: ...


@dataclass(frozen=True)
class Patient:
    """One running site. Tests put a lab's ways to ask in the place of a cluster's."""

    site: Site
    kubectl: Run
    """kubectl's arguments without the context."""
    inside: Run
    """A command in the mail server's container."""
    firewall: Firewall | UserError | None
    """None where the site has no firewall; an error where it has one that cannot be asked."""
    resolvers: tuple[str, ...]
    """Addresses of the DNS servers that speak for the Internet."""
    dns_port: int = 53
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context

    def objects(self, *kinds: str) -> list[dict[str, Any]]:
        """The namespace's objects of these kinds. Raises UserError where the cluster does not say."""
        return json.loads(answer(self.kubectl("get", ",".join(kinds), "--namespace", self.site.namespace, "--output", "json")))["items"]


def answer(result: subprocess.CompletedProcess[str]) -> str:
    """A command's output. Raises UserError with its last words where it failed."""
    if result.returncode:
        raise UserError(reason(result.stderr))
    return result.stdout


def of_cluster(site: Site) -> tuple[Run, Run]:
    """kubectl, and commands in the running pod of the site's cluster."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        if site.cluster.context is None:
            raise UserError("cluster.context is not set, so there is no cluster to ask")
        try:
            return kubectl(site.cluster.context, "--request-timeout", f"{SECONDS}s", *arguments, seconds=2 * SECONDS)
        except FileNotFoundError:
            raise UserError("needs kubectl") from None
        except subprocess.TimeoutExpired:
            raise UserError(f"kubectl gave no answer in {2 * SECONDS} s") from None

    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        result = run("exec", "--namespace", site.namespace, f"deployment/{MAIL_SERVER}", "--", *command)
        # kubectl ends with the command's own code, and says so; without that line the command did not run.
        if result.returncode and RAN not in result.stderr:
            answer(result)
        return result

    return run, inside


def since(text: str) -> float:
    """Seconds since a time as Kubernetes writes it."""
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()
