"""What pulse and probe push of the real mail server, before a real Prometheus and Alertmanager: one fault, and what a person is told."""

import pytest

from tests.lab.observed import Observed
from tests.lab.support import Log, certify
from tests.lab.watch import needs_prometheus
from tools.lab.edge import Lab

pytestmark = [needs_prometheus, pytest.mark.once("from outside, both look alike")]


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
