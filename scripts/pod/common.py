"""What the programs share: errors, metrics, requests that are tried again, IMAP. It prints no address, for that could hold a token."""

import http.client
import imaplib
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from typing import Any

DELAYS = (1, 2, 4)  # seconds before the tries after the first
TIMEOUT = 10


class ProblemError(Exception):
    """The program cannot do its work; the text is meant for a reader and holds no secret."""


class PasswordError(ProblemError):
    """The server refuses a mailbox's password."""


def terminate_cleanly(*_: object) -> None:
    """For SIGTERM: end by an exception, so that what was begun is ended in order and told."""
    sys.exit(143)


def reason(error: BaseException) -> str:
    """Why a run ended, in words that hold no secret."""
    if isinstance(error, ProblemError):
        return str(error)
    if isinstance(error, SystemExit):
        return "it was ended from outside: its time was up, or its node is being drained"
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__} {error.filename or ''}".strip()
    return type(error).__name__


class Imap(imaplib.IMAP4_SSL):
    """IMAP at one address, whose certificate must be valid for another name: the public one."""

    def __init__(self, address: str, port: int, name: str, timeout: float) -> None:
        self._address = address
        super().__init__(name, port, ssl_context=ssl.create_default_context(), timeout=timeout)

    def log_in(self, mailbox: str, password: str) -> None:
        """AUTHENTICATE PLAIN carries any password in UTF-8 (RFC 4616), LOGIN only ASCII. Raises PasswordError."""
        try:
            self.authenticate("PLAIN", lambda _: f"\0{mailbox}\0{password}".encode())
        except self.abort:
            raise
        except self.error:
            raise PasswordError("the server refused its password") from None

    def ask(self, command: str, *arguments: str) -> list[Any]:
        """The answer to a command on UIDs. Raises ProblemError where it is refused."""
        kind, data = self.uid(command, *arguments)
        if kind != "OK":
            raise ProblemError(f"the server refused {command}")
        return data

    def find(self, *criteria: str) -> list[str]:
        """The UIDs of the folder's messages that a search finds."""
        return (self.ask("SEARCH", *criteria)[0] or b"").decode("ascii").split()

    def _create_socket(self, timeout: float | None) -> ssl.SSLSocket:
        plain = socket.create_connection((self._address, self.port), timeout)
        return self.ssl_context.wrap_socket(plain, server_hostname=self.host)


class Metrics:
    """Gauges in the text format of Prometheus."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, list[str]]] = {}

    def set(self, name: str, value: float, meaning: str = "", **labels: str) -> None:
        """Add a sample; `meaning` is needed once for each name."""
        pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in sorted(labels.items()))
        sample = f"{name}{{{pairs}}} {value:.17g}" if pairs else f"{name} {value:.17g}"
        self._families.setdefault(name, (meaning, []))[1].append(sample)

    def text(self) -> str:
        blocks = []
        for name, (meaning, samples) in self._families.items():
            blocks += [f"# HELP {name} {meaning}", f"# TYPE {name} gauge", *samples]
        return "".join(f"{line}\n" for line in blocks)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def push(gateway: str | None, job: str, metrics: Metrics, *, replace: bool = False) -> bool | None:
    """Hand metrics to the Pushgateway; None where there is no gateway.

    A POST replaces the metrics that it names and keeps the job's others, such as the time of its last success; with
    `replace` (PUT) the others go.
    """
    if gateway is None:
        return None
    request = urllib.request.Request(  # noqa: S310 - http is the Pushgateway's own
        f"{gateway}/metrics/job/{job}", data=metrics.text().encode(), method="PUT" if replace else "POST"
    )
    return deliver("Pushgateway", request)


def deliver(label: str, request: urllib.request.Request) -> bool:
    """Send a request until it is accepted, four times at most. Says how it went, under `label`."""
    outcome = ""
    for delay in (0, *DELAYS):
        time.sleep(delay)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
                print(f"{label}: accepted ({response.status})")
                return True
        except urllib.error.HTTPError as error:
            outcome = f"status {error.code}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome = type(error).__name__
    print(f"{label}: failed {len(DELAYS) + 1} times, last with {outcome}", file=sys.stderr)
    return False
