"""What Rspamd says about mail from the Internet, and what happens while it is away."""

import smtplib
from email.message import EmailMessage

import pytest

from components.listeners import SUBMISSION
from tests.lab.support import MX2, Known, Log, arrives, lessons
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.lab.paths import CLIENT_DOMAIN, CLIENTS, SENDER, SENDER_DOMAIN


def _result(mail: EmailMessage) -> str:
    return " ".join(str(mail["X-Spamd-Result"] or "").split())


def test_rspamd_understands_every_rendered_file(lab: Lab) -> None:
    """It drops what it does not understand and runs on, silently."""
    told = lab.pod.host.run("rspamadm", "configtest")
    assert "syntax OK" in told.stdout
    assert [line for line in told.stderr.splitlines() if "schema error" in line or "cannot parse" in line] == []


def test_good_mail_has_its_verdict_in_its_headers(lab: Lab, known: Known) -> None:
    mail = message()
    known().send(mail, ["alice@example.org"])
    stored = arrives(lab, "alice@example.org", mail)
    assert "R_SPF_ALLOW" in _result(stored)
    assert "spf=pass" in str(stored["Authentication-Results"])


def test_mail_that_fails_spf_and_dmarc_reject_is_refused(lab: Lab, known: Known) -> None:
    lab.names.text("_dmarc.bank.example", "v=DMARC1; p=reject")
    lab.names.text("bank.example", "v=spf1 -all")
    lab.names.put("bank.example", "A", "203.0.113.77")
    mail = message("service@bank.example")
    with pytest.raises(smtplib.SMTPDataError) as refusal:
        known().send(mail, ["alice@example.org"])
    assert refusal.value.smtp_code == 554


def test_mail_that_fails_dmarc_quarantine_goes_to_junk(lab: Lab, known: Known) -> None:
    lab.names.text("_dmarc.shop.example", "v=DMARC1; p=quarantine")
    lab.names.text("shop.example", "v=spf1 ?all")
    lab.names.put("shop.example", "A", "203.0.113.78")
    mail = message("service@shop.example")
    if lab.site.mail.image_major == "15":  # its Debian's Rspamd is older, and gives fewer points: they would lie close to the bound
        del mail["Message-ID"]
    known().send(mail, ["alice@example.org"])
    stored = arrives(lab, "alice@example.org", mail, "Junk")
    assert "DMARC_POLICY_QUARANTINE" in _result(stored)
    assert "R_SPF_NEUTRAL" in _result(stored)


def test_mail_in_our_own_name_from_outside_is_refused(lab: Lab, known: Known) -> None:
    with pytest.raises(smtplib.SMTPDataError):
        known().send(message("bob@example.org"), ["alice@example.org"])


def test_a_server_without_a_reverse_name_is_deferred(lab: Lab, known: Known, log: Log) -> None:
    client = known()
    nameless = Client(lab, str(CLIENTS[61_000]))
    with nameless.smtp() as smtp:
        smtp.mail(f"friend@{CLIENT_DOMAIN}")
        code, text = smtp.rcpt("alice@example.org")
    assert code == 450
    assert b"cannot find your reverse hostname" in text or b"cannot find your hostname" in text
    with client.smtp() as smtp:
        smtp.mail(f"friend@{CLIENT_DOMAIN}")
        assert smtp.rcpt("alice@example.org")[0] == 250


def test_a_mail_server_on_the_internet_delivers_by_mx(lab: Lab) -> None:
    mail = message(f"joe@{SENDER_DOMAIN}")
    lab.sender.submit(mail["From"], ["alice@example.org"], mail.as_string())
    stored = arrives(lab, "alice@example.org", mail, seconds=30)
    assert "R_SPF_ALLOW" in _result(stored)
    assert SENDER in stored.get_all("Received")[-2]


class TestTrustedRelay:
    """A strict sender wrote to our second MX, which passes it on."""

    @staticmethod
    def _through_mx2(mail: EmailMessage, origin: str = SENDER) -> EmailMessage:
        mail["Received"] = (
            f"from mx.{SENDER_DOMAIN} (mx.{SENDER_DOMAIN} [{origin}]) by mx2.example.org (Postfix) with ESMTPS id 4XYZ "
            f"for <alice@example.org>; {mail['Date']}"
        )
        headers = mail._headers
        headers.insert(0, headers.pop())
        return mail

    def test_a_strict_sender_is_accepted_and_judged_by_its_own_address(self, lab: Lab) -> None:
        lab.names.text(f"_dmarc.{SENDER_DOMAIN}", "v=DMARC1; p=reject")
        mail = self._through_mx2(message(f"joe@{SENDER_DOMAIN}"))
        Client(lab, MX2).send(mail, ["alice@example.org"])
        stored = arrives(lab, "alice@example.org", mail)
        assert "TRUSTED_RELAY_MX2" in _result(stored)
        assert "R_SPF_ALLOW" in _result(stored)

    def test_spam_through_it_is_marked_and_never_bounced(self, lab: Lab) -> None:
        lab.names.text("_dmarc.bank.example", "v=DMARC1; p=reject")
        lab.names.text("bank.example", "v=spf1 -all")
        lab.names.put("bank.example", "A", "203.0.113.77")
        mail = self._through_mx2(message("service@bank.example"))
        Client(lab, MX2).send(mail, ["alice@example.org"])
        assert "DMARC_POLICY_REJECT" in _result(arrives(lab, "alice@example.org", mail, "Junk"))

    def test_it_does_not_wait_for_the_greeting(self, lab: Lab, log: Log) -> None:
        Client(lab, MX2).smtp().quit()
        log.line(rf"postscreen.*ALLOWLISTED \[{MX2}\]")


def test_with_rspamd_down_mail_is_deferred_and_not_passed(lab: Lab, known: Known, log: Log) -> None:
    log.expect(r"milter|Milter", r"Connection refused")
    client = known()
    lab.pod.stop("rspamd")
    try:
        incoming, outgoing = message(), message("alice@example.org", "friend@sender.example")
        with pytest.raises((smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused, smtplib.SMTPServerDisconnected)) as refused:
            client.send(incoming, ["alice@example.org"])
        assert 400 <= _code(refused.value) < 500
        with pytest.raises((smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused)) as refused:
            Client(lab).send(outgoing, ["friend@sender.example"], port=SUBMISSION.port, login="alice@example.org")
        assert 400 <= _code(refused.value) < 500
    finally:
        lab.pod.start("rspamd")
        lab.pod.wait_until_ready()
    known().send(incoming, ["alice@example.org"])
    arrives(lab, "alice@example.org", incoming)


def _code(error: BaseException) -> int:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return next(iter(error.recipients.values()))[0]
    assert isinstance(error, smtplib.SMTPResponseException)
    return error.smtp_code


def test_what_a_user_moves_to_junk_is_learned(lab: Lab, known: Known) -> None:
    mail = message(body="A quite ordinary letter with enough different words in it to be learned from, said the statistician.\n" * 3)
    known().send(mail, ["alice@example.org"])
    arrives(lab, "alice@example.org", mail)

    before = lessons(lab.pod)
    imap = Client(lab).imap("alice@example.org")
    imap.select()
    _, found = imap.search(None, "HEADER", "Message-ID", mail["Message-ID"])
    imap.copy(found[0].decode(), "Junk")
    imap.logout()
    wait_for("learning", lambda: lessons(lab.pod) > before)
