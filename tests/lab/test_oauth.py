"""Tokens of an issuer: what logs in with them, what does not, and what an issuer that is away costs others."""

import imaplib
import secrets
import smtplib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from components.listeners import SUBMISSION, SUBMISSIONS
from tests.lab.support import ISSUER, Log
from tests.standins.issuer import Issuer
from tools.lab.certificates import Authority, server_context
from tools.lab.client import Client
from tools.lab.edge import Lab

OWNER = "bob@example.org"
ADDRESS = "203.0.113.60"
GOOD = {"email": OWNER, "scope": "openid mail"}


@pytest.fixture(scope="module")
def running(lab: Lab) -> Iterator[Issuer]:
    assert lab.site.mail.oauth
    lab.world.run("ip", "address", "add", ADDRESS, "dev", "lo")
    lab.names.host(ISSUER, ADDRESS)
    with lab.outside():
        issuer = Issuer(ADDRESS, lab.authority.issue(ISSUER), (lab.site.mail.oauth.client_id, lab.client_secret))
    yield issuer
    issuer.close()
    lab.world.run("ip", "address", "del", ADDRESS, "dev", "lo")


@pytest.fixture
def issuer(running: Issuer, log: Log) -> Iterator[Issuer]:
    log.expect(r"SASL \S+ authentication failed")
    client, context = running.client, running.context
    yield running
    running.tokens.clear()
    running.client, running.context = client, context
    running.answers.set()


@pytest.fixture
def token(issuer: Issuer) -> Callable[..., str]:
    """A new one, valid for its owner unless other claims are given."""

    def make(claims: dict[str, Any] = GOOD, size: int = 40) -> str:
        text = secrets.token_hex(size // 2)
        issuer.tokens[text] = claims
        return text

    return make


# RFC 7628, section 3.1, and Google's "OAuth 2.0 Mechanism".
MECHANISMS = {"OAUTHBEARER": "n,a={user},\x01auth=Bearer {token}\x01\x01", "XOAUTH2": "user={user}\x01auth=Bearer {token}\x01\x01"}


def _answers(mechanism: str, token: str, user: str) -> Callable[..., str]:
    """To the server's first word, and to the reason of a refusal (RFC 7628, section 3.2.3)."""
    rest = iter([MECHANISMS[mechanism].format(user=user, token=token)])
    return lambda *_: next(rest, "\x01")


def _imap(client: Client, mechanism: str, token: str, user: str = OWNER) -> bool:
    session, answers = client.imap(), _answers(mechanism, token, user)
    try:
        session.authenticate(mechanism, lambda _: answers().encode())
    except imaplib.IMAP4.error:
        return False
    finally:
        session.logout()
    return True


def _submission(port: int, client: Client, mechanism: str, token: str, user: str = OWNER) -> bool:
    with client.smtp(port) as session:
        try:
            session.auth(mechanism, _answers(mechanism, token, user))
        except smtplib.SMTPAuthenticationError:
            return False
        return True


LOG_INS = {"imaps": _imap, "submissions": partial(_submission, SUBMISSIONS.port), "submission": partial(_submission, SUBMISSION.port)}


@pytest.mark.parametrize("log_in", LOG_INS.values(), ids=LOG_INS)
def test_a_token_logs_in_and_a_long_one_too(lab: Lab, log: Log, token: Callable[..., str], log_in: Callable[..., bool]) -> None:
    for mechanism in MECHANISMS:
        assert log_in(Client(lab), mechanism, token())
        assert log_in(Client(lab), mechanism, token(GOOD | {"email": "Bob@Example.org"}, size=5000))
    log.settle()
    assert log.lines(r"(?i)mismatch|failed") == [], "CrowdSec would count it"


def test_no_other_token_does(lab: Lab, log: Log, issuer: Issuer, token: Callable[..., str]) -> None:
    log.expect(r"No username returned|falling back to .aud.")
    visitor = "visitor@elsewhere.example"
    tokens = {
        "unknown": ("0" * 40, OWNER),
        "another user's": (token(GOOD | {"email": "alice@example.org"}), OWNER),
        "without an address": (token({"scope": "mail"}), OWNER),
        "another scope": (token(GOOD | {"scope": "openid email mailing"}), OWNER),
        "without a scope": (token({"email": OWNER}), OWNER),
        "for another audience": (token({"email": OWNER, "aud": "wiki"}), OWNER),
        "of a user without a mailbox": (token(GOOD | {"email": visitor}), visitor),
    }
    with ThreadPoolExecutor() as pool:  # each that is refused takes five seconds
        done = {
            (what, mechanism): pool.submit(log_in, Client(lab), mechanism, *words)
            for what, words in tokens.items()
            for log_in, mechanism in ((_imap, "XOAUTH2"), (LOG_INS["submission"], "OAUTHBEARER"))
        }
    assert {name: future.result() for name, future in done.items()} == dict.fromkeys(done, False)


def test_a_token_is_not_a_password(lab: Lab, token: Callable[..., str]) -> None:
    session = Client(lab).imap()
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        session.login(OWNER, token())
    session.logout()


def test_while_the_issuer_hangs_passwords_log_in(lab: Lab, issuer: Issuer, token: Callable[..., str]) -> None:
    issuer.asked.clear()
    issuer.answers.clear()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(_imap, Client(lab), "XOAUTH2", token())
        try:
            issuer.asked.wait()
            Client(lab).imap(OWNER).logout()
            Client(lab).smtp(SUBMISSION.port, OWNER).quit()
        finally:
            issuer.answers.set()
        assert waiting.result()


def _unknown_client(lab: Lab, issuer: Issuer) -> None:
    issuer.client = (issuer.client[0], "another")


def _other_name(lab: Lab, issuer: Issuer) -> None:
    issuer.context = server_context(*lab.authority.issue("id.other.example"))


def _unknown_authority(lab: Lab, issuer: Issuer) -> None:
    issuer.context = server_context(*Authority().issue(ISSUER))


@pytest.mark.parametrize("fault", [_unknown_client, _other_name, _unknown_authority])
def test_an_issuer_that_is_not_ours_opens_no_mailbox_and_the_log_keeps_the_secret(lab: Lab, log: Log, issuer: Issuer, token, fault) -> None:
    log.expect(r"oauth2")
    fault(lab, issuer)
    text = token()
    assert not _imap(Client(lab), "OAUTHBEARER", text)
    log.line("oauth2 failed")
    assert not [line for line in log.text().splitlines() if lab.client_secret in line or text in line]
