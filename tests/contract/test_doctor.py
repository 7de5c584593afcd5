"""The doctor on a firewall: as applied it is well; one thing changed by hand, or one node gone, is named and nothing else."""

import subprocess

import pytest

from components.edge.desired import haproxy_set, rule_set
from components.settings.doctor import Vantage
from tests.contract.helpers import pool_item
from tests.contract.standin import wait
from tests.doctor import not_well
from tools.doctor import edge
from tools.doctor.check import BlindError
from tools.doctor.examine import examine
from tools.doctor.patient import Patient, UnreachedError
from tools.doctor.vantage import Outpost

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
        (weight,) = pool_item(root, "mailserver_nodes_smtp").findall("ha_servers/item[1]/weight")
        weight.text = "99"

    found = look(lambda: firewall.edit(weigh))
    assert found.keys() == {"degraded edge.drift"}
    assert "haproxy: " in found["degraded edge.drift"][0]


def test_a_second_haproxy_is_named_first(look, firewall):
    command = ""

    def bridge():
        nonlocal command
        command = firewall.bridge(80, 443)

    found = look(bridge)
    assert list(found) == ["degraded edge.servers", "could not check edge.drift"], "nothing is planned beside it"
    assert len(found["degraded edge.servers"]) == 1
    assert all(command in line for lines in found.values() for line in lines)


def test_a_node_that_is_away_is_named(look, firewall, wanted):
    def states() -> set[str]:
        pools = firewall.client().call("health", "haproxy", wanted)["servers"] or {}
        return {state.partition(" ")[0] for servers in pools.values() for name, state in servers.items() if name == "node2"}

    def away():
        firewall.nodes[1].stop()
        wait(lambda: states() == {"DOWN"}, 20)

    found = look(away)
    assert found.keys() == {"degraded edge.servers"}
    assert all(line.endswith(": down: node2 of 2") for line in found["degraded edge.servers"])


def test_a_firewall_that_is_off_could_not_be_checked(look, firewall):
    found = look(firewall.stop)
    assert found.keys() == {"could not check edge.drift", "could not check edge.servers"}


@pytest.fixture
def vantage(firewall):
    """The stand-in's OpenSSH, as a machine that forwards connections; its forced command does not concern them."""
    key = str(firewall.root / "ssh/client")
    return Vantage(host=firewall.address, user="root", host_key=firewall.host_key, key_file=key)


def test_connections_through_an_ssh_host_carry_both_ways(look, firewall, vantage):
    look()
    outpost = Outpost(vantage)
    for _ in range(2):
        with outpost.connect(firewall.address, 25, 20) as client, client.makefile("rwb") as stream:
            assert stream.readline().startswith(b"220 ")
            sent = b"x" * 300_000 + b"\n"
            stream.write(sent)
            stream.flush()
            assert stream.read(len(sent)) == sent, "the stand-in's nodes send back what they get"


def test_what_an_ssh_host_cannot_reach_is_the_services_fault(firewall, vantage):
    with pytest.raises(UnreachedError, match="refused"):
        Outpost(vantage).connect(firewall.address, 4025, 20)


def test_an_ssh_host_that_cannot_be_used_says_nothing_of_the_services(firewall, vantage):
    other = " ".join((firewall.root / "ssh/unknown.pub").read_text().split()[:2])
    unwelcome = str(firewall.root / "ssh/unknown")
    faults = {"another host key": {"host_key": other}, "refuses the key": {"key_file": unwelcome}, "refused": {"port": 2223}}
    for text, change in faults.items():
        with pytest.raises(BlindError, match=f"doctor.vantage: root@{firewall.address}:.*{text}"):
            Outpost(vantage.model_copy(update=change)).connect(firewall.address, 25, 20)
    config = firewall.root / "ssh/sshd_config"
    config.write_text("AllowTcpForwarding no\n" + config.read_text())
    firewall.restart_sshd()
    with pytest.raises(BlindError, match="forwards no connections"):
        Outpost(vantage).connect(firewall.address, 25, 20)
