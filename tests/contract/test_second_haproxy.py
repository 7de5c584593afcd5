"""A program beside the package's HAProxy: called the same, which keeps the package from starting, or listening on mail's ports."""

import socket
import xml.etree.ElementTree as ET

import pytest

from components.edge.desired import haproxy_set, rule_set
from tests.contract.helpers import refused
from tests.contract.standin import wait
from tests.contract.test_rules import nat

pytestmark = pytest.mark.contract

IPV6 = {"edge/ipv6_address": "2001:470:6e:43d::2", "edge/ipv6_interface": "opt2"}


@pytest.mark.parametrize("verb", ["plan", "apply", "delete"])
def test_it_is_refused_by_its_command_line(firewall, applied, verb):
    command = firewall.bridge(80, 443)
    message = refused(firewall, applied, "precondition", verb=verb)
    assert f"`{command}`" in message
    assert "under another name" in message
    assert not list(firewall.root.glob("cf/conf/mailserver-edge*"))


def test_a_read_and_a_health_check_name_it(firewall, applied):
    command = firewall.bridge(80, 443)
    assert command in firewall.client().call("read", "haproxy", applied)["problem"]
    health = firewall.client().call("health", "haproxy", applied)
    assert command in health["warnings"][0]
    assert health["servers"]


def at_boot(root: ET.Element, command: str) -> None:
    place = root.find("system/shellcmd")
    if place is None:
        place = ET.SubElement(root.find("system"), "shellcmd")
    place.text = command


def test_a_boot_after_it_leaves_mail_down_until_it_is_renamed(firewall, applied):
    """The bridge starts before the packages: the package takes it for its own, and nothing is written by trying again."""
    command = firewall.bridge(80, 443)
    firewall.edit(lambda root: at_boot(root, command))
    assert firewall.boot() != 0
    assert (firewall.address, 25) not in firewall.listeners()
    writes = firewall.calls("write_config:after")
    refused(firewall, applied, "precondition")
    assert firewall.calls("write_config:after") == writes
    renamed = firewall.bridge(80, 443, name="ipv6-haproxy")
    firewall.edit(lambda root: at_boot(root, renamed))
    assert firewall.boot() == 0
    assert firewall.banner(25).startswith("220 ")


def test_after_a_crash_of_haproxy_it_keeps_the_package_from_starting(firewall, applied):
    firewall.bridge(80, 443)
    firewall.shell("kill -9 `cat /var/run/haproxy.pid`")
    wait(lambda: not firewall.package_pids())
    firewall.service("start")
    assert not firewall.package_pids()
    refused(firewall, applied, "precondition")


def test_the_stop_of_the_service_ends_it_too(firewall, applied):
    firewall.bridge(80, 443)
    firewall.service("stop")
    wait(lambda: not firewall.haproxy_pids())


def test_under_another_name_it_does_no_harm(firewall, edge_site):
    firewall.bridge(80, 443, name="ipv6-haproxy")
    site = edge_site(IPV6)
    firewall.client().call("apply", "haproxy", haproxy_set(site))
    assert not firewall.client().call("apply", "haproxy", haproxy_set(site))["changed"]
    firewall.service("stop")
    assert firewall.shell("pgrep -x ipv6-haproxy").returncode == 0


def test_old_processes_of_the_package_are_its_own(firewall, applied, edge_site):
    """A reload leaves the old one with its open connections."""

    with socket.create_connection((firewall.address, 25)) as held:
        held.recv(100)
        for wanted in (haproxy_set(edge_site({"edge/test_frontend": True})), applied):
            assert firewall.client().call("apply", "haproxy", wanted)["changed"]
        assert len(firewall.haproxy_pids()) > 1


def test_going_back_does_not_wait_for_it(firewall, applied, edge_site):
    firewall.bridge(80, 443)
    firewall.client().call("apply", "rules", rule_set(edge_site({"edge/legacy": {"address": "10.0.20.210"}, "edge/target": "legacy"})))
    assert nat(firewall)["25"].startswith("<mailserver>")


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_port_that_would_be_shared_is_refused(firewall, edge_site, verb):
    """HAProxy binds with SO_REUSEPORT, so both would listen, and each get a part of the connections."""
    firewall.bridge(25, 80, name="ipv6-bridge")
    message = refused(firewall, haproxy_set(edge_site(IPV6)), "binds", verb=verb)
    assert f"[{firewall.tunnel}]:25: ipv6-bridg" in message


def test_a_port_that_is_shared_later_is_drift(firewall, edge_site):
    wanted = haproxy_set(edge_site(IPV6))
    firewall.client().call("apply", "haproxy", wanted)
    assert firewall.client().call("read", "haproxy", wanted)["problem"] is None
    firewall.bridge(993, name="ipv6-bridge")
    assert f"listens on [{firewall.tunnel}]:993 too" in firewall.client().call("read", "haproxy", wanted)["problem"]


def test_a_haproxy_that_is_down_is_drift(firewall, applied):
    firewall.kill_haproxy()
    firewall.bridge(80, name="ipv6-bridge")
    assert firewall.client().call("read", "haproxy", applied)["problem"] == "HAProxy does not run frontend mailserver_proxy_25"
