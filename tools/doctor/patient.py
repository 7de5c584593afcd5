"""What the checks look at: the site as its settings describe it, and the ways to ask the running system."""

import errno
import json
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from components.edge.client import Firewall
from components.errors import UserError
from components.names import MAIL_SERVER, SELECTOR
from components.settings.site import Site
from tools.cluster import answer, kubectl

NO_FAMILY = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
RAN = "command terminated with exit code"
SECONDS = 20  # for one answer of anything that is asked


class UnreachedError(OSError):
    """An address took no connection."""

    @property
    def no_family(self) -> bool:
        """Whether this machine has no address of that family, so that nothing left it."""
        return self.errno in NO_FAMILY

    def __str__(self) -> str:
        return str(self.strerror or self.args[0])


class Connect(Protocol):
    """A connection to an address and port within so many seconds. Raises UnreachedError."""

    def __call__(self, address: str, port: int, seconds: float) -> socket.socket: ...


def from_here(address: str, port: int, seconds: float) -> socket.socket:
    try:
        return socket.create_connection((address, port), seconds)
    except OSError as error:
        raise UnreachedError(error.errno or errno.ETIMEDOUT, error.strerror or str(error)) from None


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
    connect: Connect = from_here
    """How a client connects."""
    outside: bool = False
    """Whether `connect` does so from the Internet."""
    errand: Callable[[], list[tuple[str, Any]]] | None = None
    """What a job in the cluster saw, by check; None where none is asked for."""

    def objects(self, *kinds: str) -> list[dict[str, Any]]:
        """The namespace's objects of these kinds. Raises UserError where the cluster does not say."""
        return json.loads(answer(self.kubectl("get", ",".join(kinds), "--namespace", self.site.namespace, "--output", "json")))["items"]

    def mail_pods(self) -> list[dict[str, Any]]:
        """The mail server's pods: more than one while it is replaced."""
        return [pod for pod in self.objects("pods") if SELECTOR.items() <= pod["metadata"].get("labels", {}).items()]


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
