"""The round-trip probe on the lab, and what surrounds it: a relay's API that sends through HAProxy, a Pushgateway."""

import email.policy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from http.server import ThreadingHTTPServer

import dkim

from components.listeners import LISTENERS
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.paths import CLIENT_DOMAIN, EDGE_IPV6, POD
from tools.lab.servers import Brevo, Gateway, Handler
from tools.new_site import dkim_key
from tools.offline.stackfile import ROOT

BOX, SENDER = "spam@example.org", f"probe@{CLIENT_DOMAIN}"
JOB, KEY = "email-roundtrip-monitor", "the key of the relay's API"
PUBLIC = "77.32.148.25"  # routed to nowhere but the lab: documentation addresses count as private
PUBLIC_DOMAIN = "public.example"


class Edge:
    """What surrounds the probe: servers on the lab's Internet host, and the probe as a program there."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.gateway = lab, Gateway()
        self.source, self.sender = lab.client(), SENDER
        self.brevo = Brevo(KEY, self.send)
        self._key = ""

    def public(self) -> None:
        """From now on its messages come signed from a public address, of a domain of its own: Rspamd remembers what others published."""
        self.source, self.sender = PUBLIC, f"probe@{PUBLIC_DOMAIN}"
        self.lab.world.run("ip", "address", "replace", PUBLIC, "dev", "lo")
        self._key, key = dkim_key()
        for name in (PUBLIC_DOMAIN, f"relay.{PUBLIC_DOMAIN}"):
            self.lab.names.host(name, PUBLIC)
        records = {"": f"v=spf1 ip4:{PUBLIC} -all", "_dmarc.": "v=DMARC1; p=reject", "s1._domainkey.": f"v=DKIM1; p={key}"}
        for place, text in records.items():
            self.lab.names.text(f"{place}{PUBLIC_DOMAIN}", text)

    def send(self, sender: str, recipient: str, subject: str) -> None:
        mail = message(sender, recipient)
        mail.replace_header("Subject", subject)
        raw = mail.as_bytes(policy=email.policy.SMTP)
        if self._key:
            raw = dkim.sign(raw, b"s1", PUBLIC_DOMAIN.encode(), self._key.encode(), include_headers=[b"from", b"to", b"subject"]) + raw
        with Client(self.lab, self.source).smtp() as smtp:
            smtp.sendmail(sender, [recipient], raw)

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


@contextmanager
def around(lab: Lab) -> Iterator[Edge]:
    """The probe's surroundings on a lab; the programs of the pods are on its Internet host."""
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
