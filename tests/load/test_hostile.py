"""Input made to break things: afterwards every service still serves, and no process has died of it."""

import contextlib
import io
import re
import socket
import threading
import time
import zipfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.listeners import LISTENERS, SMTP, Listener
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.lab.memory import pod_memory
from tools.lab.traffic import Traffic

EXAMPLES = 500  # of PROXY headers, on the four ports in turns
SLOW_CLIENTS = 120  # on each port, more than Dovecot and Postfix have processes for one
DEATH = re.compile(r"panic|fatal|killed by signal|core dump|throttling|[Ss]egmentation|Assertion")

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


numbers = st.one_of(st.integers(-1, 70000).map(str), st.sampled_from(["", "x", "0x19", "65536", "25 25"]))
addresses = st.sampled_from(["192.0.2.7", "2001:db8::7", "0.0.0.0", "256.1.1.1", "::", "::ffff:192.0.2.7", "localhost", "", "a" * 200])
v1_headers = st.builds(
    lambda protocol, source, target, here, there, end: f"PROXY {protocol} {source} {target} {here} {there}".encode() + end,
    st.sampled_from(["TCP4", "TCP6", "UNKNOWN", "UDP4", "tcp4", ""]),
    addresses,
    addresses,
    numbers,
    numbers,
    st.sampled_from([b"\r\n", b"\n", b"\r", b"", b" \r\n"]),
)


def v2(command: int, family: int, block: bytes, extra: bytes, wrong: int, cut: int) -> bytes:
    length = max(0, min(0xFFFF, len(block + extra) + wrong))
    whole = SIGNATURE + bytes([command, family]) + length.to_bytes(2, "big") + block + extra
    return whole[: len(whole) - cut]


v2_headers = st.builds(
    v2,
    st.one_of(st.sampled_from([0x20, 0x21]), st.integers(0, 255)),
    st.one_of(st.sampled_from([0x00, 0x11, 0x21, 0x31]), st.integers(0, 255)),
    st.one_of(st.binary(min_size=12, max_size=12), st.binary(min_size=36, max_size=36), st.binary(max_size=216)),
    st.lists(st.builds(tlv, st.integers(0, 255), st.binary(max_size=300)), max_size=5).map(b"".join),
    st.one_of(st.just(0), st.sampled_from([-12, -1, 1, 12, 500, 65000])),
    st.one_of(st.just(0), st.integers(0, 20)),
)
headers = st.one_of(v1_headers, v2_headers, st.binary(max_size=600))


@pytest.fixture
def unharmed(lab: Lab) -> Iterator[None]:
    """Afterwards mail is taken and read again, and the log tells of no process that died."""
    before = len(lab.pod.log())
    yield
    with Traffic(lab, 4) as traffic:
        traffic.wait_until_accepted()
        wait_for("a session", lambda: "" in traffic.sessions)
    traffic.wait_until_kept()
    assert [line for line in lab.pod.log()[before:].splitlines() if DEATH.search(line)] == []


def test_no_proxy_header_stops_a_listener(lab: Lab, unharmed: None) -> None:
    edge = Client(lab, str(lab.site.edge.address), inside=True)

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(headers, st.sampled_from(LISTENERS))
    def try_one(header: bytes, listener: Listener) -> None:
        with edge.raw(listener.proxy_port) as connection, contextlib.suppress(OSError):  # the server may be the first to hang up
            connection.sendall(header)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    try_one()


def test_slow_clients_shut_no_one_out(lab: Lab, unharmed: None) -> None:
    """From one address each, a byte at a time, on every port at once."""
    slow = []
    try:
        for listener in LISTENERS:
            client = Client(lab, ipv6=True)
            for _ in range(SLOW_CLIENTS):
                connection = client.raw(listener.port)
                slow.append(connection)
        over = threading.Event()

        def trickle() -> None:
            while not over.wait(1):
                for connection in list(slow):
                    try:
                        connection.send(b"\x16")
                    except OSError:
                        slow.remove(connection)

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            with Traffic(lab, 4) as traffic:
                traffic.wait_until_accepted()
                wait_for("a session", lambda: "" in traffic.sessions, 30)
        finally:
            over.set()
            thread.join()
    finally:
        for connection in slow:
            connection.close()


ENDLESS = 64 << 20  # bytes


def test_a_line_without_an_end_takes_no_memory(lab: Lab, unharmed: None) -> None:
    """Before TLS, where it has to begin with a greeting, and behind it: cut off, or read and forgotten."""
    client, before = Client(lab, ipv6=True), pod_memory(lab)
    for listener in LISTENERS:
        with client.raw(listener.port) as plain:
            if listener.tls == "starttls":
                plain.recv(4096)
            connection = plain if listener.tls == "starttls" else client.context().wrap_socket(plain, server_hostname=lab.site.hostname)
            with connection, contextlib.suppress(OSError):
                for _ in range(ENDLESS >> 16):
                    connection.sendall(b"A" * (1 << 16))
            assert pod_memory(lab) - before < ENDLESS // 2


def bomb() -> bytes:
    """Archives in archives; the innermost unpacks to a thousand times its size."""
    content = bytes(32 << 20)
    for number in range(4):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for copy in range(1 if number == 0 else 4):
                archive.writestr(f"{number}-{copy}.zip", content)
        content = packed.getvalue()
    return content


def attached(content: bytes, name: str) -> bytes:
    mail = message()
    mail.add_attachment(content, maintype="application", subtype="zip", filename=name)
    return mail.as_bytes()


def nested(depth: int) -> bytes:
    parts = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (level, level) for level in range(depth))
    return b"MIME-Version: 1.0\n" + parts + b"\nend\n"


STRANGE = {
    "nested": lambda: nested(2000),
    "the same boundary inside of itself": lambda: nested(500).replace(b"b1", b"b"),
    "archives in archives": lambda: attached(bomb(), "bomb.zip"),
    "a broken archive": lambda: attached(bomb()[:-100], "broken.zip"),
    "an unknown charset": lambda: b"Content-Type: text/plain; charset=utf-7777\nContent-Transfer-Encoding: base64\n\n%%%=\xff\xfe\n",
    "a broken charset": lambda: b"Subject: =?utf-8?b?////?= =?x?q?=ZZ?=\nContent-Type: text/html; charset=utf-16\n\n\xd8\x00\xdc<a>\n",
    "a header without an end": lambda: b"X-Long: " + b"a" * 900_000 + b"\n\nx\n",
    "a folded header without an end": lambda: b"X-Long: a" + b"\n b" * 200_000 + b"\n\nx\n",
    "headers without number": lambda: b"".join(b"X-%d: x\n" % number for number in range(50_000)) + b"\nx\n",
    "a body of one line": lambda: b"Subject: x\n\n" + b"<a>" * 300_000 + b"\n",
    "bytes that no message may have": lambda: b"Subject: \x00\x01\xff\r\x00\n\n\x00\r\x00\xff\n",
    "no header": lambda: b"\n",
}


def test_no_message_stops_filter_or_delivery(lab: Lab, unharmed: None) -> None:
    """Each is answered; what is accepted arrives."""
    clients = [Client(lab) for _ in range(2)]
    accepted, answers = [], {}
    for number, (what, text) in enumerate(STRANGE.items()):
        mark = f"<strange-{number}.{time.time_ns()}@clients.example>"
        raw = f"Message-ID: {mark}\nFrom: friend@clients.example\n".encode() + text().replace(b"Message-ID", b"X-Message-ID")
        with clients[number % 2].smtp(SMTP.port) as smtp:
            smtp.mail("friend@clients.example")
            smtp.rcpt("alice@example.org")
            answers[what] = smtp.data(raw)
        if answers[what][0] == 250:
            accepted.append(mark)
    assert {code for code, _ in answers.values()} <= {250, 550, 552, 554}, answers
    kept = Traffic(lab, 0)
    wait_for("what was accepted", lambda: set(accepted) <= set(kept.copies()), 60)
