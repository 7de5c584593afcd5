"""The mail server knows who is really there, on all four services."""

import re
import uuid

import pytest

from components.listeners import SUBMISSION, SUBMISSIONS
from tests.lab.support import Known, Log, arrives
from tools.lab.client import Client, message
from tools.lab.edge import Lab

FAMILIES = pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])


@FAMILIES
def test_smtp_shows_the_clients_address_in_the_log_and_in_the_received_header(lab: Lab, log: Log, ipv6: bool) -> None:
    client, mail = Client(lab, ipv6=ipv6), message()
    client.send(mail, ["alice@example.org"])
    received = arrives(lab, "alice@example.org", mail).get_all("Received")
    assert f"[{'IPv6:' if ipv6 else ''}{client.source}]" in received[-1]
    log.line(rf"smtpd-proxy25/postscreen.*CONNECT from \[{client.source}\]")
    log.line(rf"postfix/smtpd\[.*connect from \S+\[{client.source}\]")


@FAMILIES
@pytest.mark.parametrize("listener", [SUBMISSIONS, SUBMISSION], ids=lambda listener: listener.name)
def test_submission_shows_the_clients_address_in_the_log(lab: Lab, log: Log, listener, ipv6: bool) -> None:
    client, mail = Client(lab, ipv6=ipv6), message("alice@example.org", "bob@example.org")
    client.send(mail, ["bob@example.org"], port=listener.port, login="alice@example.org")
    stored = arrives(lab, "bob@example.org", mail)
    log.line(rf"smtpd-proxy{listener.port}/smtpd.*client=\S+\[{client.source}\], sasl_method=PLAIN, sasl_username=alice@example.org")
    # The image drops the Received header that would tell a recipient where its sender sits.
    assert client.source not in str(stored)


@FAMILIES
def test_imap_shows_the_clients_address_at_login(lab: Lab, log: Log, ipv6: bool) -> None:
    client = Client(lab, ipv6=ipv6)
    client.imap("alice@example.org").logout()
    log.line(rf"imap-login: (Login|Logged in): user=<alice@example.org>.*rip={client.source}, lip=")


def test_a_mail_that_comes_through_any_node_shows_the_same_client(lab: Lab, known: Known) -> None:
    client = known()
    hops = set()
    for _ in lab.nodes.names:
        mail = message(X_Trace=uuid.uuid4().hex)
        client.send(mail, ["alice@example.org"])
        hops |= set(re.findall(r"\[([\d.]+)\]", arrives(lab, "alice@example.org", mail).get_all("Received")[-1]))
    assert hops == {client.source}
