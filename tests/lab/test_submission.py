"""No one sends through us without a password or under another's name."""

import base64
import contextlib
import imaplib
import smtplib
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.listeners import LISTENERS, SMTP, SUBMISSION, SUBMISSIONS
from tests.lab.support import Log, arrives
from tools.lab.client import Client, message
from tools.lab.edge import Lab

ENTRANCES = pytest.mark.parametrize("inside", [False, True], ids=["edge", "cluster"])
PASSWORD_PORTS = pytest.mark.parametrize("listener", [SUBMISSIONS, SUBMISSION], ids=lambda listener: listener.name)


def _client(lab: Lab, *, inside: bool) -> Client:
    return Client(lab, inside=inside)


@ENTRANCES
@pytest.mark.parametrize("listener", [SMTP, SUBMISSIONS, SUBMISSION], ids=lambda listener: listener.name)
def test_no_listener_relays_without_a_password(lab: Lab, listener, inside: bool) -> None:
    """Six of the eight speak SMTP; through the edge these are the PROXY listeners."""
    with _client(lab, inside=inside).smtp(listener.port) as smtp:
        smtp.mail("friend@clients.example")
        code, text = smtp.rcpt("victim@sender.example")
    assert code == 554
    assert b"Relay access denied" in text or b"Client host rejected" in text


@ENTRANCES
def test_imap_gives_nothing_without_a_password(lab: Lab, inside: bool) -> None:
    """The other two of the eight."""
    imap = _client(lab, inside=inside).imap()
    with pytest.raises(Exception, match="illegal in state NONAUTH"):
        imap.select()
    imap.shutdown()


@ENTRANCES
def test_no_password_is_taken_before_tls(lab: Lab, inside: bool) -> None:
    client = _client(lab, inside=inside)
    for port in (SMTP.port, SUBMISSION.port):
        with client.raw(port) as connection, connection.makefile("rwb") as stream:
            offered = _talk(stream, b"EHLO client.clients.example\r\n")
            assert b"STARTTLS" in offered
            assert b"AUTH" not in offered
            assert _talk(stream, b"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n")[:3] in {b"530", b"503", b"502"}


def test_no_password_is_taken_before_tls_even_where_tls_is_optional(lab: Lab) -> None:
    """The services demand TLS, which hides the rendered rule behind them; for a moment one of them does not."""
    host, option = lab.pod.host, "submission/inet/smtpd_tls_security_level"

    def demand(level: str) -> None:
        host.run("postconf", "-P", f"{option}={level}")
        host.run("postfix", "reload")

    demand("may")
    try:
        with Client(lab, inside=True).raw(SUBMISSION.port) as connection, connection.makefile("rwb") as stream:
            assert b"AUTH" not in _talk(stream, b"EHLO client.clients.example\r\n")
    finally:
        demand("encrypt")


def _talk(stream, line: bytes) -> bytes:
    text = _whole(stream) if line.startswith(b"EHLO") else b""
    stream.write(line)
    stream.flush()
    return _whole(stream) if line.startswith(b"EHLO") else text + stream.readline()


def _whole(stream) -> bytes:
    text = b""
    while (line := stream.readline())[3:4] == b"-" or line.startswith(b"220-"):
        text += line
    return text + line


@ENTRANCES
@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.name)
def test_tls_below_1_2_is_refused(lab: Lab, log: Log, listener, inside: bool) -> None:
    log.expect(r"SSL_accept error", r"unsupported protocol", r"TLS library problem", r"SSL_accept\(\)")
    client = _client(lab, inside=inside)
    assert tls_version(client, listener.port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        tls_version(client, listener.port, ssl.TLSVersion.TLSv1_1)


def tls_version(client: Client, port: int, version: ssl.TLSVersion) -> str | None:
    """What a client that knows only this version gets."""
    context = client.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    with client.raw(port) as connection:
        if port in {SMTP.port, SUBMISSION.port}:
            stream = connection.makefile("rwb")
            _talk(stream, b"EHLO client.clients.example\r\n")
            assert _talk(stream, b"STARTTLS\r\n").startswith(b"220")
        with context.wrap_socket(connection, server_hostname=client.site.hostname) as tls:
            return tls.version()


@PASSWORD_PORTS
def test_a_wrong_password_costs_time_and_the_right_one_does_not(lab: Lab, log: Log, listener) -> None:
    log.expect(r"SASL PLAIN authentication failed", r"SASL LOGIN authentication failed", r"SASL CRAM")
    client = Client(lab)
    with client.smtp(listener.port) as smtp:
        begun = time.monotonic()
        with pytest.raises(smtplib.SMTPAuthenticationError):
            smtp.login("alice@example.org", "wrong")
        assert time.monotonic() - begun >= 4


def test_a_wrong_imap_password_costs_time(lab: Lab) -> None:
    imap = Client(lab).imap()
    begun = time.monotonic()
    with pytest.raises(imap.error):
        imap.login("alice@example.org", "wrong")
    assert time.monotonic() - begun >= 4
    imap.logout()


@PASSWORD_PORTS
@pytest.mark.parametrize("sender", ["bob@example.org", "boss@example.org", "someone@sender.example"])
def test_a_spoofed_sender_is_refused(lab: Lab, listener, sender: str) -> None:
    """Not another mailbox, not an invented address of ours, not an external one."""
    with Client(lab).smtp(listener.port, "alice@example.org") as smtp:
        smtp.mail(sender)
        code, text = smtp.rcpt("bob@example.org")
    assert code == 553
    assert b"not owned by user" in text


@pytest.mark.parametrize("sender", ["alice@example.org", "press@example.net", "postmaster@example.org", "team@example.net"])
def test_an_account_sends_as_itself_as_its_aliases_and_as_what_it_was_granted(lab: Lab, sender: str) -> None:
    mail = message(sender, "bob@example.org")
    Client(lab).send(mail, ["bob@example.org"], port=SUBMISSION.port, login="alice@example.org")
    assert arrives(lab, "bob@example.org", mail)["From"] == sender


def test_a_grant_is_for_the_one_who_has_it(lab: Lab) -> None:
    with Client(lab).smtp(SUBMISSION.port, "bob@example.org") as smtp:
        smtp.mail("press@example.net")
        assert smtp.rcpt("alice@example.org")[0] == 553


@pytest.mark.parametrize("sender", ["alice@example.org", "boss@example.org"])
def test_a_catch_all_grants_nothing_to_its_mailbox(lab: Lab, sender: str) -> None:
    with Client(lab).smtp(SUBMISSION.port, "spam@example.org") as smtp:
        smtp.mail(sender)
        assert smtp.rcpt("bob@example.org")[0] == 553


def test_rate_limits_bite_each_real_client_for_itself(lab: Lab, log: Log) -> None:
    log.expect(r"Connection rate limit exceeded")
    greedy, other = Client(lab), Client(lab)
    codes = [_greeting(greedy, SUBMISSION.port) for _ in range(12)]
    assert codes == [b"220"] * 10 + [b"421"] * 2
    assert _greeting(other, SUBMISSION.port) == b"220"


def test_a_client_may_send_thirty_messages_a_minute(lab: Lab, log: Log) -> None:
    """Through one connection, so that the limit on connections has no say."""
    log.expect(r"Message delivery request rate limit exceeded", r"too much mail")
    with Client(lab).smtp(SUBMISSION.port, "alice@example.org") as smtp:
        codes = []
        for _ in range(32):
            codes.append(smtp.mail("alice@example.org")[0])
            smtp.rset()
    assert codes == [250] * 30 + [450] * 2


def test_a_client_may_try_ten_passwords_a_minute(lab: Lab, log: Log) -> None:
    """Five seconds for each wrong one limit a connection, and this its ten connections together."""
    log.expect(r"SASL PLAIN authentication failed", r"AUTH command rate limit exceeded")
    client, wrong = Client(lab), base64.b64encode(b"\0alice@example.org\0wrong").decode()

    def tries(connection: smtplib.SMTP) -> list[int]:
        return [connection.docmd("AUTH", f"PLAIN {wrong}")[0] for _ in range(3)]

    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        connections = [stack.enter_context(client.smtp(SUBMISSION.port)) for _ in range(4)]
        codes = sorted(code for codes in pool.map(tries, connections) for code in codes)
    assert codes == [450] * 2 + [535] * 10


def test_a_user_has_fifty_imap_sessions_from_one_address_and_all_users_more_than_a_hundred(lab: Lab) -> None:
    """The webmail's sessions all come from one pod; a guesser's do not deserve more."""
    webmail, phone = Client(lab), Client(lab)
    sessions = [webmail.imap(mailbox) for mailbox in ("alice@example.org", "bob@example.org") for _ in range(50)]
    with pytest.raises(imaplib.IMAP4.error, match="Maximum number of connections"):
        webmail.imap("alice@example.org")
    sessions += [phone.imap("alice@example.org"), phone.imap("bob@example.org")]
    for session in sessions:
        session.logout()


def test_node_checks_are_not_limited(lab: Lab) -> None:
    nodes = [Client(lab, lab.nodes.seen_as(name), inside=True) for name in lab.nodes.names]
    assert {_greeting(node, SUBMISSION.port) for node in nodes for _ in range(12)} == {b"220"}


def test_trusted_relays_are_not_limited(lab: Lab) -> None:
    relay = Client(lab, str(lab.site.mail.trusted_relays[0].addresses[0]))
    assert {_greeting(relay, SMTP.port) for _ in range(12)} == {b"220"}


def _greeting(client: Client, port: int) -> bytes:
    with client.raw(port) as connection, connection.makefile("rb") as stream:
        return stream.readline()[:3]
