"""Mail ends where the settings say."""

import contextlib
import re
import smtplib

import pytest

from components.listeners import SUBMISSION
from components.settings.quantity import in_bytes
from tests.lab.support import Known, Log, arrives
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for


@pytest.mark.parametrize(
    ("to", "mailboxes"),
    [
        pytest.param("alice@example.org", ["alice@example.org"], id="self alias beside a catch-all"),
        pytest.param("never-seen@example.org", ["spam@example.org"], id="catch-all"),
        pytest.param("postmaster@example.org", ["alice@example.org"], id="alias"),
        pytest.param("team@example.net", ["alice@example.org", "bob@example.org"], id="several targets"),
        pytest.param("both@example.org", ["both@example.org", "alice@example.org"], id="several targets with itself"),
        pytest.param("alice+news@example.org", ["alice@example.org"], id="detail"),
        pytest.param("ALICE@Example.ORG", ["alice@example.org"], id="capitals"),
    ],
)
def test_mail_from_the_internet_reaches(lab: Lab, known: Known, to: str, mailboxes: list[str]) -> None:
    mail = message(to=to)
    known().send(mail, [to])
    for mailbox in mailboxes:
        arrives(lab, mailbox, mail)
    for other in set(lab.site.mail.mailboxes) - set(mailboxes):
        assert lab.stored(other, mail["Subject"]) == []


def test_a_mailbox_takes_as_many_deliveries_at_once_as_postfix_makes(lab: Lab) -> None:
    host = lab.pod.host
    at_once = int(host.run("postconf", "-h", "default_destination_concurrency_limit").stdout)
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(smtplib.LMTP(str(host.path("/run/dovecot/lmtp")))) for _ in range(at_once)]
        for session in sessions:
            session.ehlo()
            session.mail("friend@clients.example")
        assert [session.rcpt("alice@example.org")[0] for session in sessions] == [250] * at_once


def test_an_unknown_address_without_a_catch_all_is_refused_at_once(lab: Lab, known: Known) -> None:
    with known().smtp() as smtp:
        smtp.mail("friend@clients.example")
        code, text = smtp.rcpt("nobody@example.net")
    assert (code, b"User unknown" in text) == (550, True)


def test_a_mailboxs_sieve_script_sorts_its_mail(lab: Lab, known: Known) -> None:
    listed, plain = message(to="bob@example.org", List_Id="<announce.lists.example>"), message(to="bob@example.org")
    client = known()
    client.send(listed, ["bob@example.org"])
    client.send(plain, ["bob@example.org"])
    arrives(lab, "bob@example.org", plain)
    arrives(lab, "bob@example.org", listed, "Lists")


def test_a_forward_to_the_outside_leaves_under_our_own_name(lab: Lab, known: Known) -> None:
    mail = message(to="forward@example.org")
    known().send(mail, ["forward@example.org"])
    kept = wait_for("the forward", lambda: [kept for kept in lab.relay.kept() if kept["Subject"] == mail["Subject"]])[0]
    assert kept["X-Original-To"] == "friend@sender.example"
    assert re.fullmatch(r"<SRS0=\S+=clients\.example=friend@example\.org>", kept["Return-Path"])
    assert kept["From"] == mail["From"]


def test_a_bounce_to_a_rewritten_sender_finds_its_way_back(lab: Lab, known: Known) -> None:
    mail = message(to="forward@example.org")
    known().send(mail, ["forward@example.org"])
    kept = wait_for("the forward", lambda: [kept for kept in lab.relay.kept() if kept["Subject"] == mail["Subject"]])[0]
    rewritten = kept["Return-Path"].strip("<>")
    bounce = message("mailer-daemon@clients.example", rewritten)
    known().send(bounce, [rewritten])
    home = wait_for("the bounce", lambda: [kept for kept in lab.relay.kept() if kept["Subject"] == bounce["Subject"]])[0]
    assert home["X-Original-To"] == "friend@clients.example"


def test_our_own_senders_keep_their_name(lab: Lab) -> None:
    mail = message("sales@example.net", "friend@sender.example")
    Client(lab).send(mail, ["friend@sender.example"], port=SUBMISSION.port, login="alice@example.org")
    kept = wait_for("the mail", lambda: [kept for kept in lab.relay.kept() if kept["Subject"] == mail["Subject"]])[0]
    assert kept["Return-Path"] == "<sales@example.net>"


@pytest.mark.parametrize("listener", ["smtp", "submission"])
def test_the_message_size_limit_holds_to_the_byte(lab: Lab, known: Known, log: Log, listener: str) -> None:
    log.expect(r"queue file size limit exceeded", r"message size \d+ exceeds size limit")
    limit = in_bytes(lab.site.mail.message_size_limit)

    def offer(size: int) -> int:
        login = "alice@example.org" if listener == "submission" else None
        client = Client(lab) if login else known()
        with client.smtp(SUBMISSION.port if login else 25, login) as smtp:
            try:
                return smtp.mail(login or "friend@clients.example", [f"SIZE={size}"])[0]
            except smtplib.SMTPServerDisconnected:
                return 0

    assert offer(limit) == 250
    assert offer(limit + 1) == 552


@pytest.mark.parametrize(("extra", "code"), [(-8192, 250), (1, 552)])
def test_a_message_that_hides_its_size_is_measured_as_it_comes(lab: Lab, log: Log, extra: int, code: int) -> None:
    """The queue file has headers of ours in it, too, so the last kilobytes below the limit are not promised."""
    log.expect(r"queue file size limit exceeded", r"File too large", r"write queue file", r"close error")
    subject = f"size {extra}"
    head = f"From: alice@example.org\r\nTo: bob@example.org\r\nSubject: {subject}\r\nMessage-ID: <{extra}@example.org>\r\n\r\n".encode()
    line = b"x" * 70 + b"\r\n"
    size = in_bytes(lab.site.mail.message_size_limit) + extra
    body = line * ((size - len(head)) // len(line) + 1)
    body = body[: size - len(head) - 2] + b"\r\n"
    with Client(lab).smtp(SUBMISSION.port, "alice@example.org") as smtp:
        smtp.mail("alice@example.org")
        smtp.rcpt("bob@example.org")
        assert smtp.data(head + body)[0] == code
    if code == 250:
        wait_for("the large mail", lambda: lab.stored("bob@example.org", subject))
