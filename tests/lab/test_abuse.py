"""A stolen password is of little use: what one account may send, and what ends it."""

import json
import re
from email.policy import SMTP as SMTP_POLICY

import pytest

from components.listeners import SUBMISSION
from components.monitoring.log_alerts import ALERTS
from tests.lab.support import Known, Log, arrives
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.offline.stackfile import ROOT

BUSY = "busy@example.org"


@pytest.fixture
def limit(lab: Lab) -> int:
    """How many recipients an account may write to at once; no account has sent anything yet."""
    for bucket in lab.pod.host.run("redis-cli", "--raw", "keys", "RL*").stdout.split():
        lab.pod.host.run("redis-cli", "del", bucket)
    assert lab.site.mail.sending_limit
    return lab.site.mail.sending_limit.at_once


def _send(lab: Lab, recipients: list[str], login: str = BUSY) -> tuple[int, str]:
    """The answer to one message of the account."""
    with Client(lab).smtp(SUBMISSION.port) as smtp:
        smtp.login(login, lab.passwords[login.lower()])
        smtp.mail(BUSY)
        for recipient in recipients:
            assert smtp.rcpt(recipient)[0] == 250
        code, text = smtp.data(message(BUSY).as_bytes())
        return code, text.decode()


def _over(lab: Lab, recipients: list[str], login: str = BUSY) -> tuple[int, str]:
    """The answer that ends it. The limit allows one more every 24 seconds: a slow machine has sent some meanwhile."""
    answers = (_send(lab, recipients, login) for _ in range(20))
    return next((answer for answer in answers if answer[0] != 250), (250, "sent all"))


def _some(count: int) -> list[str]:
    """Recipients that the catch-all takes."""
    return [f"r{number}@example.org" for number in range(count)]


def test_an_account_over_its_limit_is_deferred_and_named(lab: Lab, log: Log, limit: int) -> None:
    log.expect(r"milter-reject")
    assert _send(lab, _some(limit))[0] == 250
    code, text = _over(lab, _some(1))
    assert (code, text.partition(";")[0]) == (451, f"4.7.1 {BUSY} has reached the sending limit of 150 recipients an hour and 200 a day")
    (query,) = (alert.query(lab.site) for alert in ALERTS if alert.name == "AccountOverSendingLimit")
    assert query
    words, account = re.findall(r"`(.+?)`", query)
    assert re.search(account, log.line(re.escape(words)))["account"] == BUSY  # pyright: ignore[reportOptionalSubscript] - a miss fails


@pytest.mark.parametrize(
    ("login", "recipient"), [(BUSY, "postmaster@example.org"), ("Busy@Example.org", "r@example.org")], ids=["postmaster", "capitals"]
)
def test_nothing_evades_the_limit(lab: Lab, log: Log, limit: int, login: str, recipient: str) -> None:
    log.expect(r"milter-reject")
    assert _send(lab, _some(limit))[0] == 250
    assert _over(lab, [recipient], login)[0] == 451


def test_the_first_message_of_an_account_has_no_more_recipients_than_its_limit(lab: Lab, limit: int) -> None:
    """Rspamd has no bucket for it yet, and would let it pass."""
    with Client(lab).smtp(SUBMISSION.port, BUSY) as smtp:
        smtp.mail(BUSY)
        assert [smtp.rcpt(recipient)[0] for recipient in _some(limit + 1)] == [250] * limit + [452]


def test_neither_others_nor_mail_to_the_account_are_limited(lab: Lab, known: Known, log: Log, limit: int) -> None:
    log.expect(r"milter-reject")
    assert _send(lab, _some(limit))[0] == 250
    assert _over(lab, _some(1))[0] == 451
    ours, incoming = message("bob@example.org", BUSY), message(to=BUSY)
    Client(lab).send(ours, [BUSY], port=SUBMISSION.port, login="bob@example.org")
    arrives(lab, BUSY, ours)
    with known().smtp() as smtp:
        for recipients in ([*_some(limit), BUSY], [BUSY]):
            smtp.sendmail(incoming["From"], recipients, incoming.as_bytes())
    wait_for("both", lambda: len(lab.stored(BUSY, incoming["Subject"])) == 2, 30)


def test_the_runbook_s_line_deletes_a_sender_s_mail_and_no_other(lab: Lab, limit: int) -> None:
    page = (ROOT / "docs/runbooks/accounts.md").read_text("utf-8")
    (line,) = re.findall(r"-- (sh -c 'postqueue .+')$", page, re.MULTILINE)
    pod = lab.pod.host
    thief, other = "press@example.net", "sales@example.net"  # senders that no other test leaves anything of in the queue
    lab.relay.stop()
    try:
        for sender in (thief, other, thief):
            Client(lab).send(message(sender), ["friend@sender.example"], port=SUBMISSION.port, login="alice@example.org")
        wait_for("the queue", lambda: _queued(lab, other) == 1 and _queued(lab, thief) == 2)
        pod.run("sh", "-c", line.replace("me@example.org", thief))
        assert (_queued(lab, thief), _queued(lab, other)) == (0, 1)
    finally:
        pod.run("postsuper", "-d", "ALL")
        lab.relay.start()


class TestFromHeader:
    """The envelope is the account's own in each case: Postfix checks that by itself."""

    @staticmethod
    def _answer(lab: Lab, *headers: str, login: str = "alice@example.org") -> tuple[int, str]:
        mail = message(login)
        del mail["From"]
        text = "".join(f"From: {header}\r\n" for header in headers).encode() + mail.as_bytes(policy=SMTP_POLICY)
        with Client(lab).smtp(SUBMISSION.port, login) as smtp:
            smtp.mail(login)
            smtp.rcpt("bob@example.org")
            code, answer = smtp.data(text)
            return code, answer.decode()

    @pytest.mark.parametrize(
        "header",
        [
            "alice@example.org",
            "Alice <Alice@Example.Org>",
            '"Alice @ work" <alice@example.org>',
            "alice@example.org, Team <team@example.net>",  # her alias
            "press@example.net",  # granted
        ],
    )
    def test_own_addresses_are_accepted(self, lab: Lab, limit: int, header: str) -> None:
        assert self._answer(lab, header)[0] == 250

    @pytest.mark.parametrize(
        "headers",
        [
            ("bob@example.org",),
            ("Alice <boss@sender.example>",),
            ("alice@example.org, bob@example.org",),
            ("alice@example.org <bob@example.org>",),
            ('"bob@example.org" <alice@example.org>',),
            ("=?utf-8?q?bob=40example=2Eorg?= <alice@example.org>",),
            ("alice@example.org (bob@example.org)",),
            ("alice@example.org", "bob@example.org"),
            ("spam@example.org",),  # the catch-all's
            ("Alice",),
        ],
    )
    def test_another_s_address_is_refused_by_name(self, lab: Lab, log: Log, limit: int, headers: tuple[str, ...]) -> None:
        log.expect(r"milter-reject")
        code, text = self._answer(lab, *headers)
        assert code == 554
        assert "alice@example.org may not write as " in text

    def test_a_grant_is_for_the_one_who_has_it(self, lab: Lab, log: Log, limit: int) -> None:
        log.expect(r"milter-reject")
        assert self._answer(lab, "press@example.net", login="bob@example.org")[0] == 554

    def test_an_exempt_account_writes_any_address(self, lab: Lab, limit: int) -> None:
        assert self._answer(lab, "friend@sender.example", login=BUSY)[0] == 250

    def test_mail_from_elsewhere_has_any_address(self, lab: Lab, known: Known) -> None:
        mail = message()
        known().send(mail, ["alice@example.org"], sender="bounces@clients.example")
        assert arrives(lab, "alice@example.org", mail)["From"] == mail["From"]


def _queued(lab: Lab, sender: str) -> int:
    """Messages that have been tried: one on its way between two queues may be missed by postsuper(1)."""
    rows = map(json.loads, lab.pod.host.run("postqueue", "-j").stdout.splitlines())
    return sum(row["sender"] == sender and row["queue_name"] == "deferred" for row in rows)
