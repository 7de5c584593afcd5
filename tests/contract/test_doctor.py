"""The doctor on a firewall: as applied it is well; one thing changed by hand, or one node gone, is named and nothing else."""

import subprocess

import pytest

from components.edge.desired import haproxy_set, rule_set
from tests.contract.helpers import pool_item
from tests.doctor import not_well
from tools.doctor import edge
from tools.doctor.examine import examine
from tools.doctor.patient import Patient

pytestmark = pytest.mark.contract


@pytest.fixture
def look(firewall, edge_site):
    """What is not well once all is applied and `damage` was done, by verdict and check."""
    site = edge_site()

    def unasked(*_: str) -> subprocess.CompletedProcess[str]:
        raise AssertionError("the firewall is asked over SSH alone")

    def asked(damage=lambda: None) -> dict[str, list[str]]:
        firewall.client().call("apply", "haproxy", haproxy_set(site))
        firewall.client().call("apply", "rules", rule_set(site))
        patient = Patient(site, unasked, unasked, firewall.client(), ())
        damage()
        return not_well(examine(patient, [edge.drift, edge.servers], lambda check: None))

    return asked


def test_as_applied_it_is_well(look):
    assert look() == {}


def test_a_change_by_hand_is_drift(look, firewall):
    def weigh(root):
        pool_item(root, "mailserver_nodes_smtp").find("ha_servers/item/weight").text = "99"

    found = look(lambda: firewall.edit(weigh))
    assert found.keys() == {"degraded edge.drift"}
    assert "haproxy: " in found["degraded edge.drift"][0]


def test_a_second_haproxy_is_named(look, firewall):
    command = ""

    def bridge():
        nonlocal command
        command = firewall.bridge(80, 443)

    found = look(bridge)
    assert any(command in line for line in found["degraded edge.servers"])


def test_a_firewall_that_is_off_could_not_be_checked(look, firewall):
    found = look(firewall.stop)
    assert found.keys() == {"could not check edge.drift", "could not check edge.servers"}
