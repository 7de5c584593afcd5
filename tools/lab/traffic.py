"""Many clients at once through HAProxy, and what became of every message that the server accepted.

Senders on 25 and 465 try again until each message is accepted, as mail servers do; readers log in over IMAP. What was promised is
counted from the server's answers, what was kept from the files in mailboxes and at the relay: no log, no queue.
"""

import contextlib
import imaplib
import itertools
import re
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage

from components.listeners import SMTP, SUBMISSIONS
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.hosts import slowness, wait_for
from tools.lab.mta import KEPT
from tools.lab.paths import CLIENT_DOMAIN, SENDER_DOMAIN

ADDRESSES = 3  # of each client: it comes back more often than the limit for one address allows
LETTERS = 10  # per connection, at most
RETRY = 3.0  # seconds from a refusal to the next try
ROLES = ("deliver", "read", "deliver", "submit")
PATIENCE = 60.0  # seconds of an idle machine for which senders still try after the end, or after the last accepted message
RAMP = 0.03  # seconds from one client to the next: the lab's name server has to keep up
TEXT = "word " * 600 + "\n"
_MESSAGE_ID = re.compile(rb"^Message-ID:\s*(<[^>]+>)", re.IGNORECASE | re.MULTILINE)


@dataclass
class Letter:
    """One message of a sender, and what it was told."""

    id: str
    port: int
    accepted: int = 0
    uncertain: int = 0  # the connection broke while the server had the text: it may have accepted it, and gets it again
    deferred: list[str] = field(default_factory=list)
    refused: str = ""  # an answer that makes a mail server give up

    def answered(self, code: int, text: bytes | str) -> None:
        said = f"{code} {text.decode(errors='replace') if isinstance(text, bytes) else text}"
        if code < 400:
            self.accepted += 1
        elif code < 500:
            self.deferred.append(said)
        else:
            self.refused = said


class Traffic:
    """`with Traffic(lab, 12) as traffic:` so many clients, each with `pause` seconds between two messages or log-ins."""

    def __init__(self, lab: Lab, clients: int, pause: float = 0.7) -> None:
        self.lab, self.pause = lab, pause
        self.letters: list[Letter] = []
        self.sessions: list[str] = []  # of the readers: what went wrong with each, or nothing
        self._over = threading.Event()
        self._known: dict[str, str] = {}
        aliases = lab.site.mail.aliases
        mailboxes = itertools.cycle([mailbox for mailbox in lab.passwords if {*aliases.get(mailbox, (mailbox,))} == {mailbox}])
        roles = zip(range(clients), itertools.cycle(ROLES), strict=False)
        self._threads = [
            threading.Thread(target=getattr(self, f"_{role}"), args=(self._addresses(number), next(mailboxes))) for number, role in roles
        ]

    def _addresses(self, number: int) -> Iterator[Client]:
        return itertools.cycle([Client(self.lab, ipv6=number % 2 != 0) for _ in range(ADDRESSES)])

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
            time.sleep(RAMP)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress = time.monotonic()
        self._over.set()
        for thread in self._threads:
            thread.join()

    # Clients.

    def _read(self, clients: Iterator[Client], mailbox: str) -> None:
        while not self._over.wait(self.pause):
            try:
                session = next(clients).imap(mailbox)
                session.select("INBOX")
                session.search(None, "UNSEEN")
                session.logout()
                self.sessions.append("")
            except (OSError, imaplib.IMAP4.error) as error:
                self.sessions.append(str(error) or type(error).__name__)

    def _deliver(self, clients: Iterator[Client], mailbox: str) -> None:
        self._send(clients, SMTP.port, f"friend@{CLIENT_DOMAIN}", [mailbox])

    def _submit(self, clients: Iterator[Client], mailbox: str) -> None:
        outside = [f"friend@{SENDER_DOMAIN}"] if self.lab.site.mail.relay else []
        self._send(clients, SUBMISSIONS.port, mailbox, [mailbox, *outside])

    def _send(self, clients: Iterator[Client], port: int, sender: str, recipients: list[str]) -> None:
        connection: smtplib.SMTP | None = None
        for number, recipient in enumerate(itertools.cycle(recipients), 1):
            mail = message(sender, recipient, TEXT)
            letter = Letter(mail["Message-ID"], port)
            self.letters.append(letter)
            while not (letter.accepted or letter.refused or self._hopeless()):
                try:
                    connection = connection or next(clients).smtp(port, None if port == SMTP.port else sender)
                    _hand_over(connection, letter, mail)
                except smtplib.SMTPResponseException as answer:
                    letter.answered(answer.smtp_code, answer.smtp_error)
                except (OSError, smtplib.SMTPException) as error:
                    letter.deferred.append(str(error) or type(error).__name__)
                if letter.accepted:
                    self._progress = time.monotonic()
                if letter.deferred and not letter.accepted and connection:
                    connection.close()
                    connection = None
                time.sleep(self.pause if letter.accepted else RETRY)
            if connection and (number % LETTERS == 0 or self._over.is_set()):
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    connection.quit()
                connection = None
            if self._over.is_set():
                return

    def _hopeless(self) -> bool:
        return self._over.is_set() and time.monotonic() - self._progress > PATIENCE * slowness()

    # What became of it.

    def count(self, port: int, begun: int = 0) -> int:
        """Messages accepted on a port, of those after the first `begun` of all."""
        return sum(letter.port == port and letter.accepted for letter in self.letters[begun:])

    def wait_until_accepted(self, seconds: float = 120) -> None:
        """Until both ports have accepted a message that was begun from now on."""
        begun = len(self.letters)
        wait_for("mail to be accepted again", lambda: all(self.count(port, begun) for port in (SMTP.port, SUBMISSIONS.port)), seconds)

    def copies(self) -> Counter[str]:
        """How often each Message-ID is kept, in any folder of any mailbox or at the relay."""
        kept = [(self.lab.pod.host, "/var/mail"), *([(self.lab.relay.host, KEPT)] if self.lab.site.mail.relay else [])]
        for host, folder in kept:
            for path in (path for part in ("new", "cur") for path in host.path(folder).rglob(f"{part}/*")):
                name = f"{host.name} {path.name.partition(':')[0]}"  # the rest are its flags
                if name not in self._known:
                    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # a reader may move it this moment
                        found = _MESSAGE_ID.search(file.read(1 << 15))
                        self._known[name] = found[1].decode() if found else ""
        return Counter(self._known.values())

    def lost(self) -> list[str]:
        """Accepted, and kept nowhere yet."""
        copies = self.copies()
        return [letter.id for letter in self.letters if letter.accepted and not copies[letter.id]]

    def wait_until_kept(self, seconds: float = 120) -> None:
        """What Postfix has deferred would come by itself too, after five minutes or more."""

        def all_kept() -> bool:
            self.lab.pod.host.run("postqueue", "-f", check=False)
            time.sleep(1)
            return not self.lost()

        wait_for("every accepted message", all_kept, seconds)

    def unexplained(self) -> list[str]:
        """Kept more often than the server may have accepted them."""
        copies = self.copies()
        return [letter.id for letter in self.letters if copies[letter.id] > letter.accepted + letter.uncertain]


def _hand_over(connection: smtplib.SMTP, letter: Letter, mail: EmailMessage) -> None:
    code, text = connection.mail(mail["From"])
    if code == 250:
        code, text = connection.rcpt(mail["To"])
    if code == 250:
        letter.uncertain += 1
        code, text = connection.data(mail.as_bytes())
        letter.uncertain -= 1
    letter.answered(code, text)
