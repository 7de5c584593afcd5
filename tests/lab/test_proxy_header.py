"""Who may say whose connection it is."""

import socket
import time

import pytest

from components.listeners import IMAPS, LISTENERS, SMTP
from tests.lab.support import Known, Log
from tools.lab.client import Client
from tools.lab.edge import Lab
from tools.lab.paths import CLIENTS, POD

V1 = b"PROXY TCP4 %s 192.0.2.1 40000 25\r\n"


def v2(source: str, port: int) -> bytes:
    """A PROXY v2 header, command PROXY, TCP over IPv4."""
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.1") + (40000).to_bytes(2, "big") + port.to_bytes(2, "big")
    return b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + len(addresses).to_bytes(2, "big") + addresses


V2_LOCAL = b"\r\n\r\n\0\r\nQUIT\n" + b"\x20\x00\x00\x00"


def rest(connection: socket.socket) -> bytes:
    """All that still comes, until the server hangs up."""
    text = b""
    try:
        while part := connection.recv(4096):
            text += part
    except ConnectionResetError:
        pass
    return text


@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.name)
def test_a_silent_connection_without_a_header_is_refused_within_ten_seconds(lab: Lab, log: Log, listener) -> None:
    log.expect(r"haproxy read: (timeout error|time limit exceeded)", r"haproxy: Client timed out")
    with Client(lab, str(lab.site.edge.address), inside=True).raw(listener.proxy_port, timeout=10) as connection:
        text = rest(connection)
    assert text == b"" if listener is IMAPS else text.startswith(b"421 ")


@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.name)
def test_a_connection_that_talks_without_a_header_is_refused_at_once(lab: Lab, log: Log, listener) -> None:
    log.expect(r"haproxy read: (missing|malformed|EOF|invalid)?", r"haproxy: Client (sent|disconnected)")
    with Client(lab, str(lab.site.edge.address), inside=True).raw(listener.proxy_port, timeout=4) as connection:
        connection.sendall(b"EHLO client.clients.example\r\n")
        text = rest(connection)
    assert text == b"" if listener is IMAPS else text.startswith(b"421 ")


def test_a_header_from_an_untrusted_network_gets_nothing_on_imaps(lab: Lab, log: Log) -> None:
    log.expect(r"haproxy: Client not trusted")
    other = Client(lab, str(CLIENTS[61_000]), inside=True)
    with other.raw(IMAPS.proxy_port, timeout=10) as connection:
        connection.sendall(v2("127.0.0.1", IMAPS.port))
        with pytest.raises(OSError) as refused:
            other.context().wrap_socket(connection, server_hostname=lab.site.hostname).do_handshake()
    assert not isinstance(refused.value, TimeoutError)


@pytest.mark.parametrize("claimed", ["127.0.0.1", POD, "192.0.2.11", "10.0.0.1", "192.168.1.1"])
def test_no_forged_header_opens_a_relay_on_smtp(lab: Lab, log: Log, claimed: str) -> None:
    log.expect(r"does not resolve to address|reverse|hostname \S+ does not")
    _assert_no_relay(lab, v2(claimed, SMTP.port))


def test_neither_does_a_header_without_a_client(lab: Lab) -> None:
    _assert_no_relay(lab, V2_LOCAL)


def test_nor_a_header_in_the_old_text_form(lab: Lab, known: Known) -> None:
    _assert_no_relay(lab, V1 % b"127.0.0.1")


def _assert_no_relay(lab: Lab, header: bytes) -> None:
    with Client(lab, str(lab.site.edge.address), inside=True).raw(SMTP.proxy_port) as connection:
        connection.sendall(header)
        stream = connection.makefile("rwb")
        replies = [_reply(stream)]
        for line in (b"EHLO forger.example", b"MAIL FROM:<friend@clients.example>", b"RCPT TO:<victim@sender.example>", b"QUIT"):
            stream.write(line + b"\r\n")
            stream.flush()
            replies.append(_reply(stream))
    assert replies[3][:3] in {b"554", b"450", b"451"}, replies
    assert b"elay access denied" in replies[3] or b"rejected" in replies[3], replies


def _reply(stream) -> bytes:
    """The reply to one command; a greeting may begin with the teaser."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        line = stream.readline()
        if line[3:4] != b"-":
            return line
    raise TimeoutError
