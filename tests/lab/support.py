"""What the lab's tests share: the site under test, clients that are known already, and a look into the logs."""

import contextlib
import json
import re
import ssl
import threading
import time
from email.message import EmailMessage
from typing import Any

from components.checks.registry import read_site
from components.listeners import IMAPS, SUBMISSION, SUBMISSIONS
from components.settings.site import Site
from tests.conftest import change, settings
from tools.lab.client import Client
from tools.lab.edge import Lab, client_name
from tools.lab.hosts import wait_for
from tools.lab.image import MailServer

RELAY_HOST = "smtp.relay.example"
MX2 = "203.0.113.10"
ISSUER = "id.issuer.example"

# Alarming words that every healthy run holds, with the reason.
HARMLESS = (
    r"postsrsd\[\d+\]: srs_\w+: .* not rewritten",  # says so at each of our own addresses
    r"dovecot: master: Warning: SIGHUP received - reloading configuration",  # the image's change detector reloads it
    r"dovecot: master: Warning: .*[Ss]ent SIG(TERM|KILL) to \d+ ",  # it ends what a reload has left of the old processes after six seconds
    r"dovecot: .*service\(\S+\): child \d+ killed with signal 9 .*code=kill",
    r"postqueue\[\d+\]: fatal: Queue report unavailable - mail system is down",  # the pulse asked while a test restarted Postfix
    r"Warning: Time moved forwards by [\d.]+ seconds",  # the machine gave no processor for a moment
    r"Memory overcommit must be enabled",  # Redis on a machine that is not tuned for it
)
ALARM = re.compile(r"\b(fatal|panic|error|warning|throttling)\b:?|Traceback", re.IGNORECASE)


def lab_settings() -> dict[str, Any]:
    """The dev stack with all that prod has besides: a relay, a second MX, a forward to the outside."""
    base = settings("dev")
    change(base, "mail/relay", {"host": RELAY_HOST, "port": 587})
    change(base, "mail/trusted_relays", [{"name": "mx2", "addresses": [MX2]}])
    change(base, "mail/message_size_limit", "1Mi")
    change(base, "mail/sending_limit", {"per_hour": 150, "per_day": 200})  # more than all tests send as one account
    change(base, "mail/app_passwords", {})
    change(base, "mail/oauth", {"introspection_url": f"https://{ISSUER}/introspect", "client_id": "mail@lab", "scope": "mail"})
    change(base, "mail/own_from", {"exempt": ["busy@example.org"]})
    change(base, "monitoring", {})
    change(base, "jobs/pushgateway", "http://127.0.0.1:9")  # nothing is there; the pulse goes on regardless
    aliases = base["mail"]["aliases"]
    aliases |= {"forward@example.org": ["friend@sender.example"], "both@example.org": ["both@example.org", "alice@example.org"]}
    aliases |= {"busy@example.org": ["busy@example.org"]}
    base["mail"]["mailboxes"] |= {"both@example.org": {}, "busy@example.org": {}}
    base["mail"]["mailboxes"]["alice@example.org"]["send_as"] = ["press@example.net"]
    return base


def lab_site(changes: dict[str, Any] | None = None) -> Site:
    base = lab_settings()
    for path, value in (changes or {}).items():
        change(base, path, value)
    return read_site(json.dumps(base))


def image(major: str) -> dict[str, Any]:
    """The change of settings that chooses a major version of the image."""
    return {"mail/image": f"docker.io/mailserver/docker-mailserver:{major}.0.0"}


class Known:
    """Clients that postscreen has met: an unknown one waits six seconds. Each serves for as many connections as the rate limit allows."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self._fresh, self._uses = lab, [], 0

    def _meet(self) -> None:
        clients = [Client(self.lab) for _ in range(8)]
        threads = [threading.Thread(target=lambda client=client: client.smtp().quit()) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self._fresh = [client for client in clients for _ in range(7)]

    def __call__(self) -> Client:
        if not self._fresh:
            self._meet()
        return self._fresh.pop()


def certify(lab: Lab, days: int) -> None:
    """Another certificate, once it is what clients see: a reload lets processes that wait for a client serve one more with the old."""
    certificate, key = lab.authority.issue(*lab.site.tls.names, days=days)
    lab.pod.mount_certificate(certificate, key)
    lab.pod.detect_changes()
    wanted = ssl.PEM_cert_to_DER_cert(certificate)
    for client in (Client(lab), Client(lab, inside=True)):
        for port in (SUBMISSIONS.port, SUBMISSION.port, IMAPS.port):
            # Postfix pauses a service after one of its processes died, as its submission services do without Dovecot.
            wait_for(f"its certificate on {client.server} {port}", lambda client=client, port=port: _shown(client, port) == wanted, 90)


def _shown(client: Client, port: int) -> bytes | None:
    """The certificate on a port; None where nothing answers at the moment."""
    with contextlib.suppress(OSError):
        return _handshake(client, port)
    return None


def _handshake(client: Client, port: int) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it may have ended
    with client.raw(port) as plain:
        if port == SUBMISSION.port:
            plain.recv(1024)
            plain.sendall(f"EHLO {client_name(client.source)}\r\n".encode())
            plain.recv(1024)
            plain.sendall(b"STARTTLS\r\n")
            plain.recv(1024)
        with context.wrap_socket(plain) as secure:
            return secure.getpeercert(binary_form=True)


class Log:
    """What daemons wrote since the test began. `expect` excuses lines that the test provokes."""

    def __init__(self, pod: MailServer) -> None:
        self.pod, self._start = pod, len(pod.log())
        self._outputs = {name: daemon.output.stat().st_size for name, daemon in pod.daemons.items()}
        self._expected: list[str] = []

    def expect(self, *patterns: str) -> None:
        self._expected += patterns

    def text(self) -> str:
        return self.pod.log()[self._start :]

    def lines(self, pattern: str) -> list[str]:
        return [line for line in self.text().splitlines() if re.search(pattern, line)]

    def line(self, pattern: str, count: int = 1) -> str:
        """The last of `count` lines that match, waited for: a daemon answers a client before it, or the log's own daemon, writes."""
        return wait_for(f"{count} x {pattern}", lambda: self.lines(pattern)[count - 1 :], 30)[0]

    def settle(self) -> None:
        """Until nothing was written for a moment: daemons log the end of a connection after the client has gone."""
        size = -1
        while size != (size := len(self.pod.log())):
            time.sleep(0.2)

    def alarms(self) -> list[str]:
        lines = self.text().splitlines()
        for name, daemon in self.pod.daemons.items():
            with daemon.output.open(errors="replace") as output:
                output.seek(self._outputs.get(name, 0))
                lines += [f"{name}: {line.rstrip()}" for line in output]
        excused = re.compile("|".join((*HARMLESS, *self._expected)))
        return [line for line in lines if ALARM.search(line) and not excused.search(line)]


def arrives(lab: Lab, mailbox: str, mail: EmailMessage, folder: str = "", seconds: float = 15) -> EmailMessage:
    """The one stored copy of a message that was just sent."""
    found = wait_for(f"mail to {mailbox}", lambda: lab.stored(mailbox, mail["Subject"], folder), seconds)
    assert len(found) == 1
    return found[0]


def lessons(pod: MailServer) -> int:
    """Grows when the filter learns words that it did not know."""
    return pod.host.run("redis-cli", "--raw", "keys", "RS*").stdout.count("RS")
