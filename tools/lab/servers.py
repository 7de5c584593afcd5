"""What the jobs talk to, each on loopback and without a lab around it: Dovecot, a Pushgateway's receiving side, Brevo's API, heartbeats."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from components.mail.image import VMAIL
from tools.lab.certificates import server_context
from tools.lab.hosts import slowness, wait_for

NAME = "mail.example.org"
PASSWORD = 'it\'s a "secret" pass'  # noqa: S105 - of mailboxes that last for seconds


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- Dovecot ------------------------------------------------------------------------------------------------------------------

DOVECOT = """\
base_dir = {run}
log_path = {folder}/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = required
ssl_cert = <{folder}/tls.pem
ssl_key = <{folder}/tls.pem
auth_failure_delay = 0
mail_location = maildir:{mail}/%d/%n
maildir_stat_dirs = yes
mail_uid = {uid}
mail_gid = {uid}
first_valid_uid = 1
default_login_user = nobody
default_internal_user = nobody
default_internal_group = nogroup
mail_max_userip_connections = 50
namespace inbox {{
  inbox = yes
  mailbox Junk {{
    auto = subscribe
  }}
}}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={uid} home={mail}/%d/%n/home
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {port}
  }}
}}
service anvil {{
  chroot =
}}
"""


@dataclass
class Dovecot:
    """A running Dovecot. Its mail store can be written to directly, as a delivery would."""

    folder: Path
    mail: Path
    port: int
    process: subprocess.Popen
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def maildir(self, address: str) -> Path:
        user, _, domain = address.rpartition("@")
        return self.mail / domain / user

    def deliver(self, address: str, text: bytes, *, folder: str = "", age: float = 0, flags: str | None = "S") -> Path:
        """Put a message of some age (seconds) into a mailbox; `flags=None` leaves it in new/, as unread mail."""
        place = self.maildir(address) / (f".{folder}" if folder else "")
        make_maildir(place, self.maildir(address))
        arrived = time.time() - age
        name = f"{int(arrived)}.M{next(self._numbers)}P{os.getpid()}.test"
        target = place / "new" / name if flags is None else place / "cur" / f"{name}:2,{flags}"
        fresh = place / "tmp" / name
        fresh.write_bytes(text)
        os.chown(fresh, VMAIL, VMAIL)
        os.utime(fresh, (arrived, arrived))
        fresh.rename(target)
        return target

    def messages(self, address: str) -> list[Path]:
        return sorted(path for part in ("cur", "new") for path in self.maildir(address).rglob(f"{part}/*") if path.is_file())

    def log(self) -> str:
        return (self.folder / "dovecot.log").read_text("utf-8")


def make_maildir(place: Path, mailbox: Path) -> None:
    for part in ("cur", "new", "tmp"):
        (place / part).mkdir(parents=True, exist_ok=True)
    for path in (mailbox.parent, mailbox, place, *(place / part for part in ("cur", "new", "tmp"))):
        os.chown(path, VMAIL, VMAIL)


def reachable(folder: Path) -> None:
    """Other users than root may enter a folder of root's."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == 0 and parent not in {Path("/"), Path(tempfile.gettempdir())}:
            parent.chmod(parent.stat().st_mode | 0o711)


@contextmanager
def dovecot(folder: Path, certificate: tuple[str, str], addresses: list[str]) -> Iterator[Dovecot]:
    if shutil.which("dovecot") is None or os.getuid() != 0:
        raise RuntimeError("needs root and Debian's dovecot-imapd")
    folder.mkdir(parents=True, exist_ok=True)
    reachable(folder)  # for Dovecot's own users
    mail, port = folder / "mail", free_port()
    run = Path(tempfile.mkdtemp(prefix="dovecot-"))  # a socket's path is limited to 107 characters
    run.chmod(0o755)
    mail.mkdir()
    os.chown(mail, VMAIL, VMAIL)
    (folder / "users").write_text("".join(f"{address}:{PASSWORD}\n" for address in addresses), encoding="utf-8")
    (folder / "users").chmod(0o644)
    (folder / "tls.pem").write_text("".join(certificate), encoding="utf-8")
    config = folder / "dovecot.conf"
    config.write_text(DOVECOT.format(folder=folder, run=run, mail=mail, uid=VMAIL, port=port), encoding="utf-8")
    with (folder / "stdout").open("wb") as output:
        process = subprocess.Popen(["dovecot", "-F", "-c", str(config)], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_for(f"port {port}", lambda: process.poll() is not None or _answers(port), 60)
        if process.poll() is not None:
            raise RuntimeError(f"Dovecot ended: {(folder / 'stdout').read_text('utf-8')}")
        for address in addresses:
            make_maildir(mail / address.rpartition("@")[2] / address.rpartition("@")[0], mail / address.rpartition("@")[2])
        yield Dovecot(folder, mail, port, process)
    finally:
        process.terminate()
        try:
            process.wait(10 * slowness())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(run, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


# --- HTTP ---------------------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    """Hands each request to the server's `answer(method, path, headers, body)`, which returns a status and a body."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, text = self.server.answer(self.command, self.path, self.headers, body)  # pyright: ignore[reportAttributeAccessIssue]
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def http_server(answer: Callable[..., tuple[int, bytes]]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer = answer  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Gateway:
    """What a Pushgateway keeps: POST replaces the metrics that it names, PUT the whole group (prometheus/pushgateway, README)."""

    url: str = ""
    broken: int = 0  # answer so many requests with 500
    requests: list[tuple[str, str]] = field(default_factory=list)
    groups: dict[str, dict[str, dict[tuple, float]]] = field(default_factory=dict)

    def answer(self, method: str, path: str, _headers: object, body: bytes) -> tuple[int, bytes]:
        self.requests.append((method, path))
        if self.broken:
            self.broken -= 1
            return 500, b""
        prefix, _, job = path.rpartition("/")
        if prefix != "/metrics/job" or method not in {"POST", "PUT"}:
            return 404, b""
        group = self.groups.setdefault(job, {})
        if method == "PUT":
            group.clear()
        for family in text_string_to_metric_families(body.decode()):
            if not family.documentation:  # it would take that; a reader of ours would not
                return 400, b"no HELP"
            group[family.name] = {tuple(sorted(sample.labels.items())): sample.value for sample in family.samples}
        return 200, b""

    def value(self, job: str, metric: str, **labels: str) -> float:
        return self.groups[job][metric][tuple(sorted(labels.items()))]

    def verdict(self, job: str, metric: str) -> str:
        """The one label value whose sample is 1."""
        (name,) = [dict(labels)["verdict"] for labels, value in self.groups[job][metric].items() if value == 1]
        return name


@dataclass
class Brevo:
    """Brevo's transactional API as its reference describes it: api-key header, 201 with messageId, 204 or 404 for an unblock.

    It takes mail to a blocked recipient with 201 too, and drops it, as the real one was seen to do.
    """

    key: str
    deliver: Callable[[str, str, str], None]  # sender, recipient, subject
    url: str = ""
    failing: int = 0  # status to answer with instead
    blocked: set[str] = field(default_factory=set)
    sent: list[dict] = field(default_factory=list)

    def answer(self, method: str, path: str, headers: dict, body: bytes) -> tuple[int, bytes]:
        if headers.get("api-key") != self.key:
            return 401, b'{"message":"Key not found","code":"unauthorized"}'
        if self.failing:
            return self.failing, b'{"message":"internal","code":"internal"}'
        if method == "DELETE" and path.startswith("/v3/smtp/blockedContacts/"):
            return self._unblock(urllib.parse.unquote(path.rpartition("/")[2]))
        if (method, path, headers.get("content-type")) != ("POST", "/v3/smtp/email", "application/json"):
            return 400, b'{"code":"invalid_parameter","message":"Input must be a valid JSON object"}'
        wanted = json.loads(body)
        self.sent.append(wanted)
        if not wanted.get("subject") or not wanted["sender"]["email"] or not wanted["to"] or not wanted.get("textContent"):
            return 400, b'{"code":"missing_parameter","message":"a parameter is missing"}'
        for recipient in wanted["to"]:
            if recipient["email"] not in self.blocked:
                self.deliver(wanted["sender"]["email"], recipient["email"], wanted["subject"])
        return 201, b'{"messageId":"<202611210000.1@smtp-relay.mailin.fr>"}'

    def _unblock(self, address: str) -> tuple[int, bytes]:
        if address not in self.blocked:
            return 404, b'{"code":"document_not_found","message":"Contact not found"}'
        self.blocked.remove(address)
        return 204, b""


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def tls_greeter(certificate: tuple[str, str], port: int, *, starttls: bool, address: str = "127.0.0.1") -> Iterator[None]:
    """A mail service's first words: TLS at once with an IMAP greeting, or SMTP with STARTTLS."""
    context = server_context(*certificate)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, port), family=family)

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            try:
                with connection:
                    connection.settimeout(5)
                    if starttls:
                        connection.sendall(b"220-mail.example.org ESMTP\r\n220 mail.example.org ESMTP\r\n")
                        connection.recv(1024)
                        connection.sendall(b"250-mail.example.org\r\n250-SIZE 1\r\n250 STARTTLS\r\n")
                        connection.recv(1024)
                        connection.sendall(b"220 2.0.0 Ready\r\n")
                    with context.wrap_socket(connection, server_side=True) as tls:
                        if not starttls:
                            tls.sendall(b"* OK ready\r\n")
                        tls.recv(16)
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
