"""Sends a message through the Internet and looks for it in the mailbox; looks at the edge from inside meanwhile.

`inbound`: the relay's HTTP API, the MX, the mailbox, IMAP. `outbound`: submission, the relay, an external address that forwards,
the MX. Ends with 0 when the message arrived and that was reported (Pushgateway, heartbeat), else with 1.
Credentials come from the environment: BREVO_API_KEY, EMAIL_MONITOR_IMAP_PASSWORD. A heartbeat is a file with a URL in it.
"""

import argparse
import base64
import email
import email.policy
import email.utils
import imaplib
import ipaddress
import json
import os
import re
import signal
import smtplib
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import EmailMessage, Message
from pathlib import Path

from common import Imap, Metrics, PasswordError, ProblemError, deliver, push, terminate_cleanly
from sight import edge_metrics, look_at_edge

MARKER = "e2e-probe-"
PREFIX = {"inbound": "email_roundtrip", "outbound": "email_outbound"}
VERDICTS = {
    "ok": "in the inbox, from a public client address",
    "junk": "arrived, but in the junk folder",
    "via_relay": "arrived by a trusted relay, so nothing is known of the direct path",
    "private_client": "arrived, but its client address is not the client's: the PROXY header got lost",
    "bounced": "a bounce or an automatic reply came instead of the message; it is still in the mailbox",
    "not_delivered": "accepted by the relay, and not in the mailbox in time",
    "send_failed": "the relay's API or our submission service refused it",
    "certificate": "the mailbox's certificate is not valid for the public name",
    "login_failed": "the mailbox refused the password",
    "imap_failed": "the mailbox could not be reached",
    "misconfigured": "a variable or a setting is missing",
    "stopped": "the run was ended from outside: its time was up, or its node is being drained",
    "internal_error": "the probe itself is broken",
}
ARRIVED = ("ok", "junk", "via_relay", "private_client")
HEADER = "(BODY.PEEK[HEADER]<0.65536>)"  # whatever the size of a header that an external sender wrote


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
    """SMTP at one address, whose certificate must be valid for another name: the public one."""

    def __init__(self, address: str, port: int, name: str, timeout: float) -> None:
        self._address = address
        super().__init__(name, port, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((self._address, port), timeout)


def credential(variable: str) -> str:
    value = os.environ.get(variable, "").rstrip("\r\n")  # as an editor leaves it
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
        # One hard bounce, and Brevo drops everything to this recipient forever while it still answers 201.
        if call("DELETE", f"/smtp/blockedContacts/{urllib.parse.quote(options.recipient, safe='')}") == 204:
            print("the relay had blocked the recipient; unblocked")
        status = call(
            "POST",
            "/smtp/email",
            {
                "sender": {"name": "Monitoring", "email": options.sender},
                "to": [{"email": options.recipient}],
                "subject": subject,
                "textContent": "A message of the round-trip probe. It is deleted when it is found.",
            },
        )
    except (OSError, ValueError) as error:
        raise VerdictError("send_failed", f"the relay's API: {type(error).__name__}") from None
    if status not in {201, 202}:  # sent, or queued
        raise VerdictError("send_failed", f"the relay's API answers {status}")


def send_by_submission(options: argparse.Namespace, subject: str) -> str:
    """The Message-ID that it was given."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = options.mailbox, options.recipient, subject
    message["Date"] = email.utils.formatdate()
    message["Message-ID"] = email.utils.make_msgid(domain=options.mailbox.rpartition("@")[2])
    message.set_content("A message of the round-trip probe. It is deleted when it is found.")
    password = credential("EMAIL_MONITOR_IMAP_PASSWORD")
    try:
        with Submission(options.address, options.submission_port, options.name, options.timeout) as smtp:
            smtp.starttls(context=ssl.create_default_context())
            # smtplib's login carries only ASCII. A password beyond it is sent in UTF-8 (RFC 4616).
            smtp.ehlo()
            word = base64.b64encode(f"\0{options.mailbox}\0{password}".encode()).decode("ascii")
            code, answer = smtp.docmd("AUTH", f"PLAIN {word}")
            if code != 235:
                raise smtplib.SMTPAuthenticationError(code, answer)
            smtp.send_message(message)
    except ssl.SSLCertVerificationError as error:
        raise VerdictError("certificate", error.verify_message) from None
    except smtplib.SMTPResponseException as error:
        raise VerdictError("send_failed", f"submission answers {error.smtp_code}") from None
    except (OSError, smtplib.SMTPException) as error:
        raise VerdictError("send_failed", f"submission: {type(error).__name__}") from None
    return message["Message-ID"]


def is_ours(message: Message, sender: str, message_id: str | None) -> bool:
    """Whether a message with our marker is the one that was sent, and not an answer to it that keeps its subject."""
    return (
        email.utils.parseaddr(str(message.get("From", "")))[1].lower() == sender.lower()
        and (message_id is None or " ".join(str(message.get("Message-ID", "")).split()) == message_id)
        and str(message.get("Auto-Submitted", "no")).partition(";")[0].strip().lower() == "no"  # RFC 3834
        and message.get_content_type() != "multipart/report"  # RFC 3464
    )


def look(options: argparse.Namespace, marker: str, message_id: str | None) -> tuple[str, Message, int] | None:
    """The folder and header of our message, and how many old ones were there; all of them are deleted. None: not there yet.

    Raises VerdictError where a bounce is there and the message is not.
    """
    password = credential("EMAIL_MONITOR_IMAP_PASSWORD")
    found, leftovers, bounced = None, 0, False
    with Imap(options.address, options.imap_port, options.name, options.timeout) as imap:
        try:
            imap.log_in(options.mailbox, password)
        except PasswordError:
            raise VerdictError("login_failed", f"as {options.mailbox}") from None
        for folder in ("INBOX", options.junk):
            if imap.select(f'"{folder}"')[0] != "OK":
                continue
            ours = []
            for uid in imap.find(f'SUBJECT "{marker}"'):
                _, parts = imap.uid("FETCH", uid, HEADER)
                header = next(part[1] for part in parts if isinstance(part, tuple))
                message = email.message_from_bytes(header, policy=email.policy.default)
                if is_ours(message, options.sender, message_id):
                    found, ours = (folder, message), [uid]
                else:
                    bounced = True
            # Postfix's bounces have a subject of their own, and ours in the returned header.
            since = time.strftime("%d-%b-%Y", time.gmtime(time.time() - 86400))
            bounced = bounced or bool(not ours and imap.find(f'SINCE {since} SMALLER 100000 BODY "{marker}"'))
            # Only what is older than any probe that may still be looking for its message.
            older = imap.find(f'SUBJECT "{MARKER}" FROM "{options.sender}" OLDER {options.leftover_age}')
            leftovers += len(set(older) - set(ours))
            if gone := sorted({*ours, *older}, key=int):
                imap.uid("STORE", ",".join(gone), "+FLAGS.SILENT", r"(\Deleted)")
                imap.uid("EXPUNGE", ",".join(gone))
    if bounced and not found:
        raise VerdictError("bounced")
    return (*found, leftovers) if found else None


def client_address(message: Message, host: str) -> str | None:
    """The address that our MX took the message from: of the topmost Received header that it wrote itself (RFC 5321, 4.4)."""
    for received in message.get_all("Received", []):
        text = " ".join(str(received).split())
        # The client's own word, its HELO, comes first and may look like an address too.
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


def relay_of(client: str | None, relays: list[str]) -> str | None:
    """The name of the trusted relay with this address, from `NAME=ADDRESS` each."""
    for relay in relays:
        name, _, address = relay.partition("=")
        if client and ipaddress.ip_address(client) == ipaddress.ip_address(address):
            return name
    return None


def round_trip(options: argparse.Namespace, result: Result) -> None:
    marker = MARKER + uuid.uuid4().hex[:12]
    credential("EMAIL_MONITOR_IMAP_PASSWORD")  # before a message is spent on it
    subject, began = f"[E2E Monitor] {marker}", time.monotonic()
    message_id = send_by_submission(options, subject) if options.direction == "outbound" else send_by_api(options, subject)
    print(f"sent {marker}")
    missing = VerdictError("not_delivered", f"not there after {options.polls} looks")
    failure = missing
    for number in range(options.polls):
        if number and time.monotonic() - began > options.deadline:
            break  # a slow server must not keep the verdict until the pod is ended
        time.sleep(options.interval)
        try:
            seen = look(options, marker, message_id)
        except ssl.SSLCertVerificationError as error:
            raise VerdictError("certificate", error.verify_message) from None
        except VerdictError as error:
            failure = error
            continue
        except (OSError, imaplib.IMAP4.error, ProblemError) as error:
            failure = VerdictError("imap_failed", type(error).__name__)
            continue
        if seen is None:
            failure = missing
            continue
        folder, message, result.leftovers = seen
        result.client = client_address(message, options.name)
        result.authentication = authentication(message, options.name)
        if folder != "INBOX":
            raise VerdictError("junk", folder)
        if relay := relay_of(result.client, options.relay):
            raise VerdictError("via_relay", f"by {relay}, so nothing is known of the direct path")
        if result.client is None or not ipaddress.ip_address(result.client).is_global:
            raise VerdictError("private_client", result.client or "no Received header of ours names an address")
        result.verdict = "ok"
        return
    raise failure


def result_metrics(metrics: Metrics, direction: str, result: Result, seconds: float) -> None:
    prefix = PREFIX[direction]
    metrics.set(f"{prefix}_success", result.verdict in ARRIVED, "Whether the last probe message arrived")
    metrics.set(f"{prefix}_duration_seconds", seconds, "Time from sending to finding, or to giving up")
    if result.verdict in ARRIVED:
        metrics.set(f"{prefix}_last_success_timestamp", time.time(), "When a probe message arrived last")
        metrics.set(f"{prefix}_inbox", result.verdict != "junk", "Whether it was in the inbox and not in the junk folder")
        if result.verdict != "via_relay":
            metrics.set(f"{prefix}_client_public", _is_public(result.client), "Whether its client address is public: PROXY works")
        metrics.set(f"{prefix}_leftovers_deleted", result.leftovers, "Messages of earlier probes that arrived too late")
    for method, outcome in result.authentication.items():
        metrics.set(f"{prefix}_authenticated", outcome == "pass", "Whether the MX found the method passed", method=method)
    for verdict in VERDICTS:
        metrics.set(f"{prefix}_verdict", verdict == result.verdict, "The last probe's verdict", verdict=verdict)


def _is_public(client: str | None) -> bool:
    return client is not None and ipaddress.ip_address(client).is_global


def heartbeats(folder: Path | None, result: Result, seconds: float) -> list[bool]:
    """Call every heartbeat of the Secret. `uptime_kuma` gets its parameters; of other URLs there may be several."""
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
                print(f"heartbeat {path.name}: line {number + 1} is not a URL", file=sys.stderr)
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
    parser.add_argument("--mx", action="append", default=[], metavar="HOST", help="a further MX whose port 25 is looked at")
    parser.add_argument("--relay", action="append", default=[], metavar="NAME=ADDRESS", help="a trusted relay that mail may come by")
    parser.add_argument("--leftover-age", type=int, default=1800, help="seconds; messages of earlier probes that are older are deleted")
    parser.add_argument("--deadline", type=float, default=600, help="seconds after which no further look begins")
    parser.add_argument("--polls", type=int, default=15)
    parser.add_argument("--interval", type=float, default=20, help="seconds between two looks into the mailbox")
    parser.add_argument("--timeout", type=float, default=10, help="seconds that a server may be silent")
    parser.add_argument("--pushgateway")
    parser.add_argument("--heartbeats", type=Path, help="folder of a Secret with URLs")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, terminate_cleanly)
    result, metrics, started = Result(), Metrics(), time.monotonic()
    families = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
    with ThreadPoolExecutor(max_workers=8) as pool:
        places = [(service, options.name, int(port), mode) for service, port, mode in (entry.split(":") for entry in options.edge)]
        places += [("smtp", host, 25, "starttls") for host in options.mx]
        sights = {
            (service, host, label): pool.submit(look_at_edge, host, port, mode == "starttls", family, options.timeout)
            for service, host, port, mode in places
            for label, family in families.items()
        }
        try:
            round_trip(options, result)
        except VerdictError as error:
            result.verdict, result.detail = error.verdict, error.detail
        except SystemExit:
            result.verdict = "stopped"
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
