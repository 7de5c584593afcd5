"""The round-trip probe on the lab: a stand-in for the relay's API sends through HAProxy, the probe reads the delivered message."""

import json
import threading

import pytest

from components.listeners import LISTENERS
from tests.lab.probe import BOX, JOB, Edge
from tests.lab.support import Log
from tools.lab.edge import Lab
from tools.lab.paths import POD

pytestmark = pytest.mark.once("a client of its own asks, by what every mail server speaks")


def test_a_message_from_a_public_client_goes_round_and_the_edge_is_seen_by_both_families(lab: Lab, edge: Edge, log: Log) -> None:
    edge.public()
    done = edge.probe()
    assert (done.returncode, edge.verdict) == (0, "ok"), done.stdout + done.stderr
    assert edge.gateway.value(JOB, "email_roundtrip_client_public") == 1
    assert edge.gateway.value(JOB, "email_roundtrip_authenticated", method="spf") == 1, done.stdout
    for listener in LISTENERS:
        for family in ("ipv4", "ipv6"):
            assert edge.seen("email_edge_up", listener.name, family) == 1, done.stdout
            assert edge.seen("email_edge_tls", listener.name, family) == 1, done.stdout
            assert 0 < edge.seen("email_edge_certificate_days", listener.name, family) < 3
    assert not lab.stored(BOX, edge.brevo.sent[0]["subject"])
    log.expect(r"lost connection|disconnect")


def test_a_client_address_that_is_not_public_is_told_apart(edge: Edge) -> None:
    done = edge.probe()
    assert (done.returncode, edge.verdict) == (0, "private_client"), done.stdout + done.stderr
    assert edge.source in done.stdout
    assert json.dumps(edge.brevo.sent[0]["to"]) == '[{"email": "smoke-test@example.org"}]'


def test_outbound_goes_through_submission_and_the_relay_to_an_external_address_and_comes_back(lab: Lab, edge: Edge, log: Log) -> None:
    """The external address is this test: it forwards what the relay was given to the probe's mailbox."""
    stop = threading.Event()

    def forward() -> None:
        done: set[str] = set()
        while not stop.wait(0.3):
            for mail in lab.relay.kept():
                subject = str(mail["Subject"])
                if "e2e-probe-" in subject and subject not in done:
                    done.add(subject)
                    edge.forward(mail)

    thread = threading.Thread(target=forward)
    thread.start()
    try:
        where = ("--job", "email-outbound-monitor", "--name", lab.site.hostname, "--address", POD, "--mailbox", BOX)
        who = ("--sender", BOX, "--recipient", "loop@external.example", "--polls", "20", "--interval", "1")
        # With a line break at its end, as an editor leaves it in a store.
        variables = {"EMAIL_MONITOR_IMAP_PASSWORD": f"{lab.passwords[BOX]}\n", "SSL_CERT_FILE": "/etc/ssl/certs/lab-ca.pem"}
        command = ("python3", "-B", "/scripts/probe.py", "outbound", *where, *who, "--pushgateway", edge.gateway.url)
        done = lab.world.run(*command, check=False, env=variables, seconds=120)
        wrong = lab.world.run(*command, check=False, env=variables | {"EMAIL_MONITOR_IMAP_PASSWORD": "wrong"}, seconds=120)
    finally:
        stop.set()
        thread.join()
    log.expect(r"SASL (PLAIN|LOGIN) authentication failed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdict private_client" in done.stdout  # the lab's forwarder has a documentation address
    assert "submission answers 535" in wrong.stdout
    assert edge.gateway.verdict("email-outbound-monitor", "email_outbound_verdict") == "send_failed"
    assert edge.gateway.value("email-outbound-monitor", "email_outbound_success") == 0
    assert edge.gateway.groups["email-outbound-monitor"]["email_outbound_last_success_timestamp"]
