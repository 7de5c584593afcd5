"""What Rspamd and Dovecot count reaches the pulse, as its user, and no other host: their pages ask for no password."""

import imaplib
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.mail.dovecot import COUNTS_PORT
from components.mail.files import PULSE_ARGUMENTS, SCRIPTS_DIR
from components.mail.image import CONFIG_DIR
from components.mail.rspamd import CONTROLLER_PORT
from tests.lab.support import Known, arrives
from tools.lab.client import Client, message
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.lab.paths import POD


def _counts(lab: Lab) -> dict[str, float]:
    told = "import pulse; print(pulse.gather(pulse.parse()).text())"
    as_pulse = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"PYTHONPATH={SCRIPTS_DIR}")
    text = lab.pod.host.run(*as_pulse, "python3", "-B", "-c", told, f"@{CONFIG_DIR}/{PULSE_ARGUMENTS}").stdout
    return {family.name: sum(sample.value for sample in family.samples) for family in text_string_to_metric_families(text)}


def test_mail_and_logins_are_counted(lab: Lab, known: Known) -> None:
    client, mail, before = known(), message(), _counts(lab)
    client.send(mail, ["alice@example.org"])
    arrives(lab, "alice@example.org", mail)
    Client(lab).imap("alice@example.org").logout()
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        Client(lab).imap().login("alice@example.org", "wrong")
    names = ("rspamd_actions_total", "dovecot_auth_success_total", "dovecot_auth_failure_total")
    before = {name: before.get(name, 0) for name in names}  # Rspamd names no action before the first message
    wait_for("the counts", lambda: all(_counts(lab).get(name, 0) > count for name, count in before.items()))


@pytest.mark.parametrize("port", [CONTROLLER_PORT, COUNTS_PORT])
def test_no_other_host_reaches_the_pages(lab: Lab, port: int) -> None:
    """Without the NetworkPolicy, which the lab does not have."""
    assert lab.pod.listening(port)
    with lab.outside(), pytest.raises(ConnectionRefusedError):
        socket.create_connection((POD, port), timeout=10)
