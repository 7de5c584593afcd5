"""A device with a password of its own: where it is accepted, whose it was, and what is left after it was revoked."""

import base64
import imaplib
import smtplib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO

import pytest

from components.listeners import MANAGESIEVE_PORT, SUBMISSION, SUBMISSIONS
from components.mail.files import config_files
from tests.lab.support import Log, image, lab_site
from tools.lab.client import Client
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.lab.image import CONFIG_DIR

OWNER = "busy@example.org"
POD = "10.244.1.0"  # one of cluster.pod_networks that the lab's clients can have
LISTED = f"{CONFIG_DIR}/app-passwords.txt"
DATABASES = "/etc/dovecot/conf.d/05-app-passwords.conf"


def _imap(client: Client, password: str, account: str = OWNER) -> bool:
    session = client.imap()
    try:
        session.login(account, password)
    except imaplib.IMAP4.error:
        return False
    finally:
        session.logout()
    return True


def _submission(port: int) -> Callable[[Client, str], bool]:
    def submission(client: Client, password: str) -> bool:
        with client.smtp(port) as session:
            try:
                session.login(OWNER, password)
            except smtplib.SMTPAuthenticationError:
                return False
            return True

    return submission


def _managesieve(client: Client, password: str) -> bool:
    """RFC 5804: an answer is some lines, of which the last begins with OK, NO or BYE."""

    def answer(stream: IO[bytes]) -> bytes:
        while not (line := stream.readline()).startswith((b"OK", b"NO", b"BYE")):
            assert line, "the connection ended"
        return line

    with client.raw(MANAGESIEVE_PORT) as plain, plain.makefile("rwb", 0) as before_tls:
        answer(before_tls)
        before_tls.write(b"STARTTLS\r\n")
        answer(before_tls)
        with client.context().wrap_socket(plain, server_hostname=client.site.hostname) as secure, secure.makefile("rwb", 0) as stream:
            answer(stream)
            word = base64.b64encode(f"\0{OWNER}\0{password}".encode()).decode()
            stream.write(f'AUTHENTICATE "PLAIN" "{word}"\r\n'.encode())
            return answer(stream).startswith(b"OK")


LOG_INS = {"imaps": _imap, "submissions": _submission(SUBMISSIONS.port), "submission": _submission(SUBMISSION.port)}


def _at_once(*attempts: Callable[[], bool]) -> list[bool]:
    """Each that is refused takes five seconds."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda attempt: attempt(), attempts))


@pytest.fixture(autouse=True)
def _refused(log: Log) -> None:
    log.expect(r"SASL (PLAIN|LOGIN) authentication failed")


@pytest.mark.parametrize("log_in", LOG_INS.values(), ids=LOG_INS)
def test_an_app_password_logs_in_and_its_device_is_in_the_log(lab: Lab, log: Log, log_in: Callable[[Client, str], bool]) -> None:
    for device, password in lab.app_passwords[OWNER].items():
        client = Client(lab)
        assert log_in(client, password)
        log.line(rf"{OWNER},{client.source}.* app password {device} acc")


def test_an_app_password_is_neither_for_managesieve_nor_for_another_mailbox(lab: Lab) -> None:
    inside, outside, phone = Client(lab, inside=True), Client(lab), lab.app_passwords[OWNER]["phone"]
    assert _managesieve(inside, lab.passwords[OWNER])
    refused = _at_once(lambda: _managesieve(inside, phone), lambda: _imap(outside, phone, "bob@example.org"))
    assert refused == [False, False]


def test_the_mailbox_s_own_password_causes_no_mismatch(lab: Lab, log: Log) -> None:
    """CrowdSec would count it."""
    client = Client(lab)
    assert _imap(client, lab.passwords[OWNER])
    log.line(rf"imap-login: .*{client.source}")
    assert log.lines(rf"(?i){client.source}.*(mismatch|failed)") == []


def test_a_revoked_app_password_is_refused_and_the_others_go_on(lab: Lab) -> None:
    path = lab.pod.host.path(LISTED)
    listed = path.read_text()
    phone, tablet = lab.app_passwords[OWNER].values()
    thief, owner = Client(lab), Client(lab)
    log_ins = (_imap, LOG_INS["submission"])
    try:
        path.write_text("".join(line for line in listed.splitlines(keepends=True) if "|phone|" not in line))
        assert _at_once(*(partial(log_in, thief, phone) for log_in in log_ins)) == [False, False]
        assert [log_in(owner, password) for log_in in log_ins for password in (tablet, lab.passwords[OWNER])] == [True] * 4
    finally:
        path.write_text(listed)


def _load(lab: Lab, databases: str) -> None:
    """As the image's change detector reloads, until the old processes have gone: Postfix stays with the Dovecot that it knows."""
    pod = lab.pod.host

    def processes() -> set[str]:
        return set(pod.run("pgrep", "-f", "^dovecot/auth", check=False).stdout.split())

    pod.write(DATABASES, databases)
    before = processes()
    pod.run("dovecot", "reload")
    pod.settle_postfix()
    pod.run("postfix", "reload")
    wait_for("the end of Dovecot's old processes", lambda: not before & processes(), 60)


@pytest.fixture
def required_outside(lab: Lab, major: str) -> Iterator[None]:
    site = lab_site(image(major) | {"mail/app_passwords": {"required_outside": True}})
    before = lab.pod.host.path(DATABASES).read_text()
    try:
        _load(lab, config_files(site)["app-passwords.cf"])
        yield
    finally:
        _load(lab, before)


@pytest.mark.usefixtures("required_outside")
def test_where_app_passwords_are_required_the_mailbox_s_own_is_for_the_cluster(lab: Lab) -> None:
    own, submission = lab.passwords[OWNER], LOG_INS["submission"]
    outside, pod = Client(lab), Client(lab, POD, inside=True)
    for log_in in (_imap, submission):
        assert log_in(outside, lab.app_passwords[OWNER]["phone"])
        assert log_in(pod, own)
    refused = _at_once(lambda: _imap(outside, own), lambda: submission(outside, own), lambda: _imap(pod, "wrong"))
    assert refused == [False] * 3, "the last: what comes before the image's list verifies nothing"
