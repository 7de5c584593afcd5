"""A mail server's pod without an edge around it: its files, and those of its daemons that a test starts."""

import contextlib
import imaplib
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

from components.settings.site import Site
from tests.lab.test_set_up import secrets_for
from tools.lab.certificates import Authority
from tools.lab.debian import below
from tools.lab.hosts import Host
from tools.lab.image import MailServer
from tools.lab.paths import NAMESERVER

ALICE, BOB = "alice@example.org", "bob@example.org"
PASSWORD = "a password"


@contextlib.contextmanager
def pod_alone(folder: Path, site: Site) -> Iterator[MailServer]:
    """Before its init container runs; Alice and Bob have the password."""
    host = Host("mailserver", folder, below(site.mail.image_major))
    try:
        secrets = secrets_for(site)
        secrets.accounts |= dict.fromkeys((ALICE, BOB), PASSWORD)
        yield MailServer(host, site, secrets, Authority().issue("mail.example.org"), NAMESERVER)
    finally:
        host.close()


@contextlib.contextmanager
def imap(pod: MailServer, address: str = ALICE) -> Iterator[imaplib.IMAP4_SSL]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pod.host.network(), imaplib.IMAP4_SSL("127.0.0.1", 993, ssl_context=context) as session:
        session.login(address, PASSWORD)
        yield session


def deliver(pod: MailServer, subject: str, address: str = ALICE, size: int = 10) -> None:
    """As Postfix hands a message to Dovecot."""
    body = "x" * 60 + "\r\n"
    with smtplib.LMTP(str(pod.host.path("/run/dovecot/lmtp"))) as lmtp:
        text = f"From: friend@sender.example\r\nSubject: {subject}\r\n\r\n{body * (size // len(body) + 1)}"
        lmtp.sendmail("friend@sender.example", [address], text)
