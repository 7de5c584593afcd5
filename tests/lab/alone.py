"""A mail server's pod without an edge around it: its files, and those of its daemons that a test starts."""

import contextlib
import imaplib
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

from components.settings.site import Site
from tools.lab.certificates import Authority
from tools.lab.debian import below
from tools.lab.hosts import Host
from tools.lab.image import MailServer, Secrets
from tools.lab.paths import NAMESERVER
from tools.new_site import dkim_key

ALICE, BOB = "alice@example.org", "bob@example.org"
PASSWORD = "a password"
RELAY = "[smtp.relay.example]:587 user@login:pass:word with spaces\n"


def secrets_for(site: Site) -> Secrets:
    """Every mailbox has the password."""
    keys = {key.secret_key(name): dkim_key()[0] for name, domain in site.domains.items() for key in domain.dkim}
    return Secrets(accounts=dict.fromkeys(site.mail.mailboxes, PASSWORD), dkim=keys, relay=RELAY, client_secret="a-secret")


@contextlib.contextmanager
def pod_alone(folder: Path, site: Site) -> Iterator[MailServer]:
    """Before its init container runs."""
    host = Host("mailserver", folder, below(site.mail.image_major))
    try:
        yield MailServer(host, site, secrets_for(site), Authority().issue("mail.example.org"), NAMESERVER)
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
