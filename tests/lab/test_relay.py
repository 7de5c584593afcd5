"""Mail to the outside: through the relay, over checked TLS, signed, and never lost."""

import dkim
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from components.dns.records import records
from components.listeners import SUBMISSION, SUBMISSIONS
from tests.lab.support import Known, Log, lab_site
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for

OUTSIDE = "friend@sender.example"


def _send(lab: Lab, port: int = SUBMISSION.port, **headers: str):
    mail = message("alice@example.org", OUTSIDE, **headers)
    Client(lab).send(mail, [OUTSIDE], port=port, login="alice@example.org")
    return mail


def _kept(lab: Lab, mail) -> list[bytes]:
    return [raw for raw in lab.relay.raw() if mail["Subject"].encode() in raw]


def _queue(lab: Lab) -> list[str]:
    return lab.pod.host.run("postqueue", "-j").stdout.splitlines()


def test_mail_to_the_outside_goes_to_the_relay_with_password_and_checked_tls(lab: Lab, log: Log) -> None:
    mail = _send(lab)
    wait_for("the relay", lambda: _kept(lab, mail))
    log.line(r"Verified TLS connection established to smtp.relay.example\[203.0.113.25\]:587: TLSv1\.[23]")
    wait_for("the login", lambda: f"sasl_username={lab.relay_login[0]}" in lab.relay.log())


def test_a_relay_with_another_name_in_its_certificate_gets_neither_mail_nor_password(lab: Lab, log: Log) -> None:
    lab.relay.certify(lab.authority.issue("another.example"))
    logins = lab.relay.log().count("sasl_username=")
    try:
        mail = _send(lab)
        log.line(r"status=deferred \(Server certificate not verified\)")
        assert _kept(lab, mail) == []
        assert lab.relay.log().count("sasl_username=") == logins
    finally:
        lab.relay.certify(lab.authority.issue(lab.relay.name))
    lab.pod.host.run("postqueue", "-f")
    wait_for("the relay", lambda: _kept(lab, mail), 30)


def test_mail_waits_while_the_relay_is_down_and_leaves_when_it_is_back(lab: Lab, log: Log) -> None:
    lab.relay.stop()
    try:
        mail = _send(lab)
        log.line(r"status=deferred")
        assert len(_queue(lab)) == 1
    finally:
        lab.relay.start()
    assert _kept(lab, mail) == []
    lab.pod.host.run("postqueue", "-f")
    wait_for("the relay", lambda: _kept(lab, mail), 30)
    wait_for("an empty queue", lambda: _queue(lab) == [])
    assert len(_kept(lab, mail)) == 1


@pytest.mark.parametrize("port", [SUBMISSION.port, SUBMISSIONS.port])
def test_the_signature_of_outgoing_mail_verifies_against_the_published_key(lab: Lab, port: int) -> None:
    """As it reaches the relay: behind our own header filters, which must not break what they come after."""
    mail = _send(lab, port, X_Mailer="A program", User_Agent="Another")
    raw = wait_for("the relay", lambda: _kept(lab, mail))[0]

    def txt(owner: bytes, timeout: int = 5) -> bytes:
        texts = lab.names.lookup(owner.decode().rstrip("."), "TXT")
        return b"".join(dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, texts[0]).strings) if texts else b""  # type: ignore[attr-defined]

    assert raw.count(b"DKIM-Signature:") == 1
    assert b"d=example.org" in raw
    assert b"s=mail" in raw
    assert dkim.verify(raw, dnsfunc=txt)
    assert not dkim.verify(raw.replace(b"Hello.", b"Hallo."), dnsfunc=txt)


def test_the_signature_verifies_against_the_rendered_zone(lab: Lab) -> None:
    """The record as the DNS provider shows it: quoted, and split where the provider splits it."""
    _, public = lab.dkim["example.org.mail"]
    site = lab_site({"domains/example.org/dkim": [{"selector": "mail", "public_key": public}]})
    contents = {record.name: record.content for record in records(site) if record.type == "TXT"}

    def txt(owner: bytes, timeout: int = 5) -> bytes:
        content = contents[owner.decode().rstrip(".")]
        return b"".join(dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, content).strings)  # type: ignore[attr-defined]

    mail = _send(lab, SUBMISSION.port)
    raw = wait_for("the relay", lambda: _kept(lab, mail))[0]
    assert dkim.verify(raw, dnsfunc=txt)


def test_mail_of_an_external_sender_does_not_get_our_signature(lab: Lab, known: Known) -> None:
    mail = message(to="forward@example.org")
    known().send(mail, ["forward@example.org"])
    assert b"DKIM-Signature" not in wait_for("the forward", lambda: _kept(lab, mail))[0]
