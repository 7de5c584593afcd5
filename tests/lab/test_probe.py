"""The round-trip probe on the lab: a stand-in for the relay's API sends through HAProxy, the probe reads the delivered message."""

import json
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from http.server import ThreadingHTTPServer

import pytest

from components.listeners import LISTENERS
from tests.lab.support import Log
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.paths import CLIENT_DOMAIN, EDGE_IPV6, POD
from tools.lab.servers import Brevo, Gateway, Handler
from tools.offline.stackfile import ROOT

pytestmark = pytest.mark.once("a client of its own asks, by what every mail server speaks")
BOX, SENDER = "spam@example.org", f"probe@{CLIENT_DOMAIN}"
JOB, KEY = "email-roundtrip-monitor", "the key of the relay's API"
PUBLIC = "77.32.148.25"  # routed to nowhere but the lab: documentation addresses count as private


class Edge:
    """What surrounds the probe: servers on the lab's Internet host, and the probe as a program there."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.gateway = lab, Gateway()
        self.source, self.sender = lab.client(), SENDER
        self.brevo = Brevo(KEY, self.send)

    def send(self, sender: str, recipient: str, subject: str) -> None:
        mail = message(sender, recipient)
        mail.replace_header("Subject", subject)
        Client(self.lab, self.source).send(mail, [recipient])

    def forward(self, mail: EmailMessage) -> None:
        """As a forwarding mailbox does: the same message under an envelope of its own."""
        Client(self.lab, self.source).smtp().send_message(mail, SENDER, ["smoke-test@example.org"])

    def probe(self, *arguments: str, polls: int = 10):
        lab = self.lab
        where = ("--job", JOB, "--name", lab.site.hostname, "--address", POD, "--mailbox", BOX)
        who = ("--sender", self.sender, "--recipient", "smoke-test@example.org", "--api", f"{self.brevo.url}/v3")
        edge = [f"--edge={s.name}:{s.port}:{s.tls}" for s in LISTENERS]
        pace = ("--polls", str(polls), "--interval", "1", "--timeout", "15", "--pushgateway", self.gateway.url)
        variables = {"BREVO_API_KEY": KEY, "EMAIL_MONITOR_IMAP_PASSWORD": lab.passwords[BOX], "SSL_CERT_FILE": "/etc/ssl/certs/lab-ca.pem"}
        command = ("python3", "-B", "/scripts/probe.py", "inbound", *where, *who, *edge, *pace, *arguments)
        return lab.world.run(*command, check=False, env=variables, seconds=120)

    def seen(self, metric: str, service: str, family: str) -> float:
        return self.gateway.value(JOB, metric, service=service, host=self.lab.site.hostname, family=family, seen_from="inside")

    @property
    def verdict(self) -> str:
        return self.gateway.verdict(JOB, "email_roundtrip_verdict")


@pytest.fixture
def edge(lab: Lab) -> Iterator[Edge]:
    edge = Edge(lab)
    for program in (ROOT / "scripts" / "pod").glob("*.py"):
        lab.world.write(f"/scripts/{program.name}", program.read_text("utf-8"))
    lab.world.write("/etc/ssl/certs/lab-ca.pem", lab.authority.certificate)
    lab.world.write("/etc/hosts", f"127.0.0.1 localhost\n{lab.site.edge.address} {lab.site.hostname}\n{EDGE_IPV6} {lab.site.hostname}\n")
    servers = []
    with lab.outside():  # a thread takes the network of the one that starts it along
        for answering in (edge.gateway, edge.brevo):
            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.answer = answering.answer  # pyright: ignore[reportAttributeAccessIssue]
            answering.url = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            servers.append(server)
    yield edge
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_message_from_a_public_client_goes_round_and_the_edge_is_seen_by_both_families(lab: Lab, edge: Edge, log: Log) -> None:
    edge.source, edge.sender = PUBLIC, "probe@public.example"  # a domain of its own: Rspamd remembers what others published
    if PUBLIC not in lab.world.run("ip", "-4", "address", "show", "dev", "lo").stdout:
        lab.world.run("ip", "address", "add", PUBLIC, "dev", "lo")
    for name in ("public.example", "relay.public.example"):
        lab.names.host(name, PUBLIC)
    lab.names.text("public.example", f"v=spf1 ip4:{PUBLIC} -all")
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
