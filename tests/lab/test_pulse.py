"""What Rspamd counts reaches the pulse, as its user, and no other host: the page asks for no password."""

import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from components.listeners import IMAPS
from components.mail.files import PULSE_ARGUMENTS, SCRIPTS_DIR
from components.mail.image import CONFIG_DIR
from components.mail.rspamd import CONTROLLER_PORT
from tests.lab.support import Known, arrives
from tools.lab.client import message
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.lab.paths import POD


def _verdicts(lab: Lab) -> dict[str, float]:
    told = "import pulse; print(pulse.gather(pulse.parse()).text())"
    as_pulse = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"PYTHONPATH={SCRIPTS_DIR}")
    text = lab.pod.host.run(*as_pulse, "python3", "-B", "-c", told, f"@{CONFIG_DIR}/{PULSE_ARGUMENTS}").stdout
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    assert "rspamd_learned_total" in families
    return {sample.labels["type"]: sample.value for sample in families.get("rspamd_actions_total", ())}


def test_verdicts_are_counted_by_kind(lab: Lab, known: Known) -> None:
    client, mail, before = known(), message(), _verdicts(lab)
    client.send(mail, ["alice@example.org"])
    arrives(lab, "alice@example.org", mail)
    wait_for("the count", lambda: sum(_verdicts(lab).values()) == sum(before.values()) + 1)
    assert {"reject", "add header", "no action"} <= _verdicts(lab).keys()


def test_no_other_host_reaches_the_controller(lab: Lab) -> None:
    """Without the NetworkPolicy, which the lab does not have."""
    assert lab.pod.listening(CONTROLLER_PORT)
    with lab.outside():
        socket.create_connection((POD, IMAPS.port), timeout=10).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((POD, CONTROLLER_PORT), timeout=10)
