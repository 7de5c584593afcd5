"""Sends a message round the world and looks for it in the mailbox; looks at the edge from inside meanwhile.

`inbound`: the relay's HTTP API, the MX, the mailbox, IMAP. `outbound`: submission, the relay, a stranger who forwards, the MX.
Ends with 0 when the message arrived and somebody was told (a Pushgateway, a heartbeat), else with 1.
Credentials come from the environment: BREVO_API_KEY, EMAIL_MONITOR_IMAP_PASSWORD. A heartbeat is a file with a URL in it.
"""

import argparse
import email
import email.policy
import email.utils
import imaplib
import ipaddress
import json
import os
import re
import smtplib
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import EmailMessage, Message
from pathlib import Path
from typing import BinaryIO

from common import Imap, Metrics, ProblemError, deliver, push

MARKER = "e2e-probe-"
PREFIX = {"inbound": "email_roundtrip", "outbound": "email_outbound"}
VERDICTS = {
    "ok": "in the inbox, from a public client address",
    "junk": "arrived, but in the junk folder",
    "private_client": "arrived, but its client address is not the client's: the PROXY header got lost",
    "not_delivered": "accepted by the relay, and not in the mailbox in time",
    "send_failed": "the relay's API or our submission service refused it",
    "certificate": "the mailbox's certificate is not valid for the public name",
    "login_failed": "the mailbox refused the password",
    "imap_failed": "the mailbox could not be reached",
    "misconfigured": "a variable or a setting is missing",
    "internal_error": "the probe itself is broken",
}
ARRIVED = ("ok", "junk", "private_client")


@dataclass
class Result:
    """How a round trip went; `authentication` holds the verdicts of SPF, DKIM and DMARC that the MX wrote into the message."""

    verdict: str = "internal_error"
    detail: str = ""
    client: str | None = None
    authentication: dict[str, str] = field(default_factory=dict)
    leftovers: int = 0


class VerdictError(Exception):
    def __init__(self, verdict: str, detail: str = "") -> None:
        super().__init__(detail)
        self.verdict, self.detail = verdict, detail


class Submission(smtplib.SMTP):
    """SMTP at one address under another name, for the same reason."""

    def __init__(self, address: str, port: int, name: str, timeout: float) -> None:
        self._address = address
        super().__init__(name, port, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((self._address, port), timeout)


def credential(variable: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise VerdictError("misconfigured", f"{variable} is not set or empty")
    return value


def send_by_api(options: argparse.Namespace, subject: str) -> None:
    """Hand the message to Brevo (developers.brevo.com, "Send a transactional email": 201 with a messageId)."""
    key = credential("BREVO_API_KEY")
    headers = {"api-key": key, "accept": "application/json", "content-type": "application/json"}

    def call(method: str, path: str, body: dict | None = None) -> int:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{options.api}{path}", data=data, headers=headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=options.timeout * 3) as response:  # noqa: S310
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    try:
        # One hard bounce, and Brevo drops everything to this recipient for ever while it still answers 201.
        if call("DELETE", f"/smtp/blockedContacts/{urllib.parse.quote(options.recipient, safe='')}") == 204:
            print("the relay had blocked the recipient; unblocked")
        status = call(
            "POST",
            "/smtp/email",
            {
                "sender": {"name": "Monitoring", "email": options.sender},
                "to": [{"email": options.recipient}],
                "subject": subject,
                "textContent": "A message of the round-trip probe. It is deleted when it was found.",
            },
        )
    except (OSError, ValueError) as error:
        raise VerdictError("send_failed", f"the relay's API: {type(error).__name__}") from None
    if status != 201:
        raise VerdictError("send_failed", f"the relay's API answers {status}")


def send_by_submission(options: argparse.Namespace, subject: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = options.mailbox, options.recipient, subject
    message["Date"] = email.utils.formatdate()
    message["Message-ID"] = email.utils.make_msgid(domain=options.mailbox.rpartition("@")[2])
    message.set_content("A message of the round-trip probe. It is deleted when it was found.")
    password = credential("EMAIL_MONITOR_IMAP_PASSWORD")
    try:
        with Submission(options.address, options.submission_port, options.name, options.timeout) as smtp:
            smtp.starttls(context=ssl.create_default_context())
            smtp.login(options.mailbox, password)
            smtp.send_message(message)
    except ssl.SSLCertVerificationError as error:
        raise VerdictError("certificate", error.verify_message) from None
    except smtplib.SMTPResponseException as error:
        raise VerdictError("send_failed", f"submission answers {error.smtp_code}") from None
    except (OSError, smtplib.SMTPException) as error:
        raise VerdictError("send_failed", f"submission: {type(error).__name__}") from None


def look(options: argparse.Namespace, marker: str, window: int) -> tuple[str, Message, int] | None:
    """The folder and header of our message, and how many older ones lay there; all of them are deleted. None: not there yet."""
    password = credential("EMAIL_MONITOR_IMAP_PASSWORD")
    found, leftovers = None, 0
    with Imap(options.address, options.imap_port, options.name, options.timeout) as imap:
        try:
            imap.login(options.mailbox, password)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error:
            raise VerdictError("login_failed", f"as {options.mailbox}") from None
        for folder in ("INBOX", options.junk):
            if imap.select(f'"{folder}"')[0] != "OK":
                continue
            ours = _search(imap, f'SUBJECT "{marker}"')
            if ours:
                _, parts = imap.uid("FETCH", ours[0], "(BODY.PEEK[HEADER])")
                header = next(part[1] for part in parts if isinstance(part, tuple))
                found = (folder, email.message_from_bytes(header, policy=email.policy.default))
            # Only what is older than any probe that may still be looking for its message.
            older = _search(imap, f'SUBJECT "{MARKER}" FROM "{options.sender}" OLDER {window}')
            leftovers += len(set(older) - set(ours))
            if gone := sorted(set(ours + older), key=int):
                imap.uid("STORE", ",".join(gone), "+FLAGS.SILENT", r"(\Deleted)")
                imap.uid("EXPUNGE", ",".join(gone))
    return (*found, leftovers) if found else None


def _search(imap: imaplib.IMAP4, criteria: str) -> list[str]:
    kind, data = imap.uid("SEARCH", criteria)
    if kind != "OK":
        raise imaplib.IMAP4.error("SEARCH was refused")
    return data[0].decode().split() if data and data[0] else []


def client_address(message: Message, host: str) -> str | None:
    """The address that our MX took the message from: of the topmost Received header that it wrote itself (RFC 5321, 4.4)."""
    for received in message.get_all("Received", []):
        text = " ".join(str(received).split())
        # The client's own word, its HELO, stands first and may look like an address too.
        if f" by {host} " in f"{text} " and (found := re.findall(r"\[(?:IPv6:)?([0-9A-Fa-f.:]+)\]", text.split(" by ")[0])):
            return found[-1]
    return None


def authentication(message: Message, host: str) -> dict[str, str]:
    """`{"spf": "pass", …}` from the topmost Authentication-Results header of our MX (RFC 8601); `none` for what it does not tell."""
    results: dict[str, str] = dict.fromkeys(("spf", "dkim", "dmarc"), "none")
    for header in message.get_all("Authentication-Results", []):
        server, _, rest = str(header).partition(";")
        if server.split()[:1] == [host]:
            for method, result in re.findall(r"\b(spf|dkim|dmarc)=(\w+)", rest):
                if results[method] != "pass":  # of several signatures one is enough
                    results[method] = result
            break
    return results


def round_trip(options: argparse.Namespace, result: Result) -> None:
    marker = MARKER + uuid.uuid4().hex[:12]
    credential("EMAIL_MONITOR_IMAP_PASSWORD")  # before a message is spent on it
    send = send_by_api if options.direction == "inbound" else send_by_submission
    send(options, f"[E2E Monitor] {marker}")
    print(f"sent {marker}")
    failure = VerdictError("not_delivered", f"not there after {options.polls} looks")
    for _ in range(options.polls):
        time.sleep(options.interval)
        try:
            seen = look(options, marker, max(1, int(2 * options.polls * options.interval)))
        except ssl.SSLCertVerificationError as error:
            raise VerdictError("certificate", error.verify_message) from None
        except VerdictError as error:
            failure = error
            continue
        except (OSError, imaplib.IMAP4.error) as error:
            failure = VerdictError("imap_failed", type(error).__name__)
            continue
        if seen is None:
            failure = VerdictError("not_delivered", f"not there after {options.polls} looks")
            continue
        folder, message, result.leftovers = seen
        result.client = client_address(message, options.name)
        result.authentication = authentication(message, options.name)
        if folder != "INBOX":
            raise VerdictError("junk", folder)
        if result.client is None or not ipaddress.ip_address(result.client).is_global:
            raise VerdictError("private_client", result.client or "no Received header of ours names an address")
        result.verdict = "ok"
        return
    raise failure


@dataclass
class Seen:
    """What one service shows to a client that comes by one address family."""

    up: bool = False
    secure: bool = False
    days_left: float | None = None
    detail: str = ""


def look_at_edge(name: str, port: int, starttls: bool, family: socket.AddressFamily, timeout: float) -> Seen:
    """Connect as a client from outside would, as far as that can be seen from inside."""
    seen = Seen()
    try:
        address = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)[0][4]
        with socket.socket(family, socket.SOCK_STREAM) as plain:
            plain.settimeout(timeout)
            plain.connect(address)
            if starttls:
                stream = plain.makefile("rb")
                _reply(stream)
                seen.up = True
                for command in (b"EHLO probe.invalid", b"STARTTLS"):
                    plain.sendall(command + b"\r\n")
                    _reply(stream)
            with ssl.create_default_context().wrap_socket(plain, server_hostname=name) as tls:
                certificate = tls.getpeercert() or {}
                seen.days_left = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86400
                seen.secure = True
                seen.up = seen.up or tls.recv(4) == b"* OK" or not starttls
    except ssl.SSLCertVerificationError as error:
        seen.detail = error.verify_message
        seen.days_left = 0.0 if error.verify_code == 10 else None  # X509_V_ERR_CERT_HAS_EXPIRED
    except (OSError, ProblemError) as error:
        seen.detail = str(error) if isinstance(error, ProblemError) else type(error).__name__
    return seen


def _reply(stream: BinaryIO) -> bytes:
    """A whole SMTP reply; postscreen sends its first line at once and the last one after its greeting test."""
    lines = []
    while line := stream.readline(2048):
        lines.append(line)
        if line[3:4] != b"-":
            break
    if not lines or lines[-1][:1] not in {b"2"}:
        raise ProblemError("no welcome" if not lines else f"answers {lines[-1][:3].decode('ascii', 'replace')}")
    return b"".join(lines)


def edge_metrics(metrics: Metrics, sights: dict[tuple[str, str], Future[Seen]]) -> None:
    for (service, family), future in sights.items():
        seen, labels = future.result(), {"service": service, "family": family, "seen_from": "inside"}
        metrics.set("email_edge_up", seen.up, "Whether the service greets a client at the public name", **labels)
        metrics.set("email_edge_tls", seen.secure, "Whether TLS with a valid certificate came about", **labels)
        if seen.days_left is not None:
            metrics.set("email_edge_certificate_days", seen.days_left, "Days until the served certificate expires", **labels)
        print(f"edge {service} {family}: {'ok' if seen.up and seen.secure else seen.detail or 'no greeting'}")


def result_metrics(metrics: Metrics, direction: str, result: Result, seconds: float) -> None:
    prefix = PREFIX[direction]
    metrics.set(f"{prefix}_success", result.verdict in ARRIVED, "Whether the last probe message arrived")
    metrics.set(f"{prefix}_duration_seconds", seconds, "Time from sending to finding, or to giving up")
    if result.verdict in ARRIVED:
        metrics.set(f"{prefix}_last_success_timestamp", time.time(), "When a probe message arrived last")
        metrics.set(f"{prefix}_inbox", result.verdict != "junk", "Whether it was in the inbox and not in the junk folder")
        metrics.set(f"{prefix}_client_public", _is_public(result.client), "Whether its client address is public: PROXY works")
        metrics.set(f"{prefix}_leftovers_deleted", result.leftovers, "Messages of earlier probes that arrived too late")
    for method, outcome in result.authentication.items():
        metrics.set(f"{prefix}_authenticated", outcome == "pass", "Whether the MX found the method passed", method=method)
    for verdict in VERDICTS:
        metrics.set(f"{prefix}_verdict", verdict == result.verdict, "The last probe's verdict", verdict=verdict)


def _is_public(client: str | None) -> bool:
    return client is not None and ipaddress.ip_address(client).is_global


def heartbeats(folder: Path | None, result: Result, seconds: float) -> list[bool]:
    """Tell every heartbeat of the Secret that all is well. `uptime_kuma` gets its parameters; of other URLs there may be several."""
    if folder is None or not folder.is_dir() or result.verdict not in ARRIVED:
        return []
    told = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        for number, line in enumerate(path.read_text("utf-8").split()):
            url = line
            if path.name == "uptime_kuma":
                url = f"{line.partition('?')[0]}?{urllib.parse.urlencode({'status': 'up', 'msg': result.verdict, 'ping': int(seconds)})}"
            try:
                request = urllib.request.Request(url)  # noqa: S310 - the owner's own URL
            except ValueError:
                print(f"heartbeat {path.name}: line {number + 1} is no URL", file=sys.stderr)
                told.append(False)
                continue
            told.append(deliver(f"heartbeat {path.name}", request))
    return told


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("direction", choices=PREFIX)
    parser.add_argument("--job", required=True, help="name of the group in the Pushgateway")
    parser.add_argument("--name", required=True, help="public name of the mail server, which certificates must be valid for")
    parser.add_argument("--address", required=True, help="where IMAP and submission are reached")
    parser.add_argument("--imap-port", type=int, default=993)
    parser.add_argument("--submission-port", type=int, default=587)
    parser.add_argument("--mailbox", required=True, help="the mailbox that the message lands in")
    parser.add_argument("--junk", default="Junk", help="its junk folder")
    parser.add_argument("--sender", required=True)
    parser.add_argument("--recipient", required=True)
    parser.add_argument("--api", help="base URL of the relay's API; needed inbound")
    parser.add_argument("--edge", action="append", default=[], metavar="SERVICE:PORT:implicit|starttls", help="look at it through --name")
    parser.add_argument("--polls", type=int, default=15)
    parser.add_argument("--interval", type=float, default=20, help="seconds between two looks into the mailbox")
    parser.add_argument("--timeout", type=float, default=10, help="seconds that a server may be silent")
    parser.add_argument("--pushgateway")
    parser.add_argument("--heartbeats", type=Path, help="folder of a Secret with URLs")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    result, metrics, started = Result(), Metrics(), time.monotonic()
    families = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
    with ThreadPoolExecutor(max_workers=8) as pool:
        sights = {
            (service, label): pool.submit(look_at_edge, options.name, int(port), mode == "starttls", family, options.timeout)
            for service, port, mode in (entry.split(":") for entry in options.edge)
            for label, family in families.items()
        }
        try:
            round_trip(options, result)
        except VerdictError as error:
            result.verdict, result.detail = error.verdict, error.detail
        except Exception as error:  # noqa: BLE001 - a probe that dies without a word looks like a healthy one
            result.detail = type(error).__name__
        seconds = time.monotonic() - started
        edge_metrics(metrics, sights)
    result_metrics(metrics, options.direction, result, seconds)
    print(f"verdict {result.verdict}: {result.detail or VERDICTS[result.verdict]} ({seconds:.1f} s)")
    pushed = push(options.pushgateway, options.job, metrics)
    told = heartbeats(options.heartbeats, result, seconds) + ([] if pushed is None else [pushed])
    return 0 if result.verdict in ARRIVED and (not told or any(told)) else 1


if __name__ == "__main__":
    sys.exit(main())
