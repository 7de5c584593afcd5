"""A mailbox with a limit, and one without beside it."""

import imaplib
import re
import smtplib
import socket
from collections.abc import Iterator

import pytest

from tests.lab.alone import ALICE, BOB, deliver, imap, pod_alone
from tests.lab.support import image, lab_site
from tools.lab.hosts import wait_for
from tools.lab.image import MailServer

LIMIT = 2**20
TENTH = LIMIT // 10
ELSEWHERE = (
    "postmaster@example.org",
    "forward@example.org",
    "never-seen@example.org",
)  # aliases of a mailbox, of an outer one, a catch-all
QUOTAS = {"mail/mailboxes/alice@example.org/quota": "1Mi"}


@pytest.fixture
def pod(major: str, tmp_path) -> Iterator[MailServer]:
    with pod_alone(tmp_path / "pod", lab_site(image(major) | QUOTAS)) as pod:
        pod.assemble()
        pod.set_up()
        pod.start("rsyslog", "dovecot")
        wait_for("Dovecot", lambda: pod.listening(993, 65265), 30)
        yield pod


def told(session: imaplib.IMAP4) -> tuple[int, int] | None:
    """What a client is told: bytes that are used, and the limit."""
    (rows,) = session.getquotaroot("INBOX")[1][1:]
    found = re.search(rb"STORAGE (\d+) (\d+)", rows[0] or b"")
    return (int(found[1]) * 1024, int(found[2]) * 1024) if found else None


def policy(pod: MailServer, recipient: str) -> str:
    """What Dovecot answers to Postfix before a message is taken (SMTPD_POLICY_README)."""
    question = f"request=smtpd_access_policy\nrecipient={recipient}\nsize=1000\n\n"
    with pod.host.network(), socket.create_connection(("127.0.0.1", 65265), 20) as connection:
        connection.sendall(question.encode())
        return connection.makefile("r").readline().strip()


def test_a_full_mailbox_refuses_and_the_others_have_no_limit(pod: MailServer):
    with imap(pod) as session:
        assert told(session) == (0, LIMIT)
        session.append("INBOX", "", "", b"Subject: nearly full\r\n\r\n" + b"x" * (LIMIT - TENTH // 2))
        with pytest.raises(smtplib.SMTPResponseException) as refused:
            deliver(pod, "two tenths", size=2 * TENTH)
        assert b"uota" in refused.value.smtp_error
        answers = {address: policy(pod, address) for address in (ALICE, BOB, *ELSEWHERE)}
        assert set(answers.values()) == {"action=DUNNO"}, answers
        deliver(pod, "the last", size=TENTH)
        used, _ = told(session) or (0, 0)
        assert used > LIMIT
        assert policy(pod, ALICE) == "action=552 5.2.2 Mailbox is full"
        assert session.append("INBOX", "", "", b"Subject: too much\r\n\r\n")[0] == "NO"
    with imap(pod, BOB) as session:
        assert told(session) is None
    for _ in range(3):
        deliver(pod, "more than Alice may have", BOB, LIMIT // 2)
