"""What pulse and probe push of the real mail server, before a real Prometheus and Alertmanager: one fault, and what a person is told."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from components.mail.files import PULSE_ARGUMENTS, SCRIPTS_DIR
from components.mail.image import CONFIG_DIR
from tests.lab.probe import BOX, Edge
from tests.lab.support import Log, certify, lab_site
from tests.lab.watch import Watch, needs_prometheus
from tools.lab.edge import Lab
from tools.lab.paths import NAMESERVER

pytestmark = needs_prometheus


PROBE = {"mailbox": BOX, "recipient": "smoke-test@example.org", "api": "https://api.relay.example/v3"}


class Observed:
    """The lab's mail server under observation."""

    def __init__(self, lab: Lab, edge: Edge, watch: Watch) -> None:
        self.lab, self.edge, self.watch = lab, edge, watch
        edge.gateway.url = watch.url

    def pulse(self) -> None:
        once = ("--interval=0", f"--pushgateway={self.watch.url}")
        self.lab.pod.host.run("python3", "-B", f"{SCRIPTS_DIR}/pulse.py", f"@{CONFIG_DIR}/{PULSE_ARGUMENTS}", *once)

    def firing(self) -> set[str]:
        self.pulse()
        self.edge.probe()
        return self.watch.firing()


@pytest.fixture
def observed(lab: Lab, edge: Edge, tmp_path: Path) -> Iterator[Observed]:
    certify(lab, 60)
    edge.public()
    with ExitStack() as stack, lab.outside():
        yield Observed(lab, edge, Watch(stack, tmp_path / "watch", lab_site({"jobs/probe": PROBE}), NAMESERVER))
    certify(lab, 2)


def test_of_dovecot_that_has_ended_and_of_an_expired_certificate_a_person_is_told_once(lab: Lab, observed: Observed, log: Log) -> None:
    log.expect("SASL", "smtpd pid .* exit status 1", "bad command startup", "dovecot: master: Warning", r"dovecot: imap-login")
    log.expect("SSL_accept", "TLS library problem", "lost connection")
    assert observed.firing() == set()

    lab.pod.stop("dovecot")
    try:
        assert observed.firing() >= {"MailListenerMissing", "MailEdgeDown", "EmailProbeMailboxUnreachable", "EmailRoundtripFailing"}
        observed.watch.told({"MailListenerMissing"})
    finally:
        lab.pod.start("dovecot")
        lab.pod.wait_until_ready()
    certify(lab, 60)  # returns once every service answers
    assert observed.firing() == set()

    certify(lab, -1)
    assert observed.firing() >= {"MailCertificateExpired", "MailCertificateExpiring", "MailEdgeTlsBroken", "EmailProbeCertificate"}
    observed.watch.told({"MailCertificateExpired"})
