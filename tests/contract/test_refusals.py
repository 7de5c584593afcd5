"""What must not get through: each was accepted, or noticed too late, by what came before."""

import copy
import socket
import xml.etree.ElementTree as ET

import pytest

from components.edge.client import AgentError
from components.edge.desired import haproxy_set, rule_set
from tests.contract.helpers import frontend_item, refused
from tests.contract.standin import wait

pytestmark = pytest.mark.contract


def changed(wanted, change):
    wanted = copy.deepcopy(wanted)
    change(wanted)
    return wanted


BROKEN = {
    "an unknown keyword": ("test", lambda w: w["pools"]["mailserver_nodes_smtp"].update(advanced_backend="no such keyword")),
    "a server without a port": ("test", lambda w: w["pools"]["mailserver_nodes_smtp"]["servers"]["node1"].update(port="")),
    "a type that is missing": ("test", lambda w: w["frontends"]["mailserver_proxy_25"].update(type="")),
    "a pool that is not there": ("test", lambda w: w["frontends"]["mailserver_proxy_25"].update(pool="nowhere")),
    "a host name to listen on": ("binds", lambda w: w["frontends"]["mailserver_proxy_25"].update(binds=["mail.example.org:25"])),
    "a port that is not a number": ("binds", lambda w: w["frontends"]["mailserver_proxy_25"].update(binds=["127.0.0.1:smtp-port"])),
    "a frontend that is not active": ("binds", lambda w: w["frontends"]["mailserver_proxy_25"].update(status="inactive")),
    "an address that is not the firewall's": ("binds", lambda w: w["frontends"]["mailserver_proxy_25"].update(binds=["192.0.2.1:25"])),
    "two of ours on one port": (
        "binds",
        lambda w: w["frontends"]["mailserver_proxy_25"].update(binds=w["frontends"]["mailserver_proxy_587"]["binds"]),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_refused_before_anything_is_written(firewall, applied, name):
    step, change = BROKEN[name]
    refused(firewall, changed(applied, change), step)
    assert firewall.banner(25).startswith("220 ")


@pytest.mark.parametrize(
    ("key", "ports"),
    [
        ("any_ipv4", "587"),
        ("opt1_ipv4", "587"),
        ("any_ipv4", "submission"),
        ("any_ipv4", "500:600"),
        ("any_ipv4", "586,587"),
    ],
)
def test_an_address_of_a_frontend_that_is_not_ours_is_refused(firewall, applied, key, ports):
    def take(root):
        item = ET.SubElement(root.find("installedpackages/haproxy/ha_backends"), "item")
        item.extend(copy.deepcopy(list(frontend_item(root, "internal_https_443"))))
        item.find("name").text = "webgui_traefik_2525"
        item.find("a_extaddr/item/extaddr").text = key
        item.find("a_extaddr/item/extaddr_port").text = ports

    firewall.edit(take)
    assert "webgui_traefik_2525" in refused(firewall, changed(applied, lambda w: w["frontends"].pop("mailserver_proxy_25")), "binds")


def test_two_items_of_one_name_are_refused(firewall, applied):
    def twice(root):
        root.find("installedpackages/haproxy/ha_backends").append(copy.deepcopy(frontend_item(root, "mailserver_proxy_25")))

    firewall.edit(twice)
    refused(firewall, applied, "conflict")


def test_saved_and_unapplied_changes_are_not_applied(firewall, wanted):
    (firewall.root / "var/run/haproxy.conf.dirty").touch()
    assert "unapplied changes" in refused(firewall, wanted, "unapplied")


@pytest.mark.parametrize("point", ["read:after", "test:after"])
def test_a_configuration_that_changes_meanwhile_is_not_overwritten(firewall, wanted, point):
    """The change of another writer, between the reading and the commit, survives; ours is refused."""
    firewall.fault(f"{point}|file_put_contents($GLOBALS['g']['conf_path'] . '/config.xml', \"<!-- theirs -->\\n\", FILE_APPEND);")
    with pytest.raises(AgentError) as error:
        firewall.client().call("apply", "haproxy", wanted)
    assert error.value.step == "concurrent"
    assert firewall.config_file.read_text().endswith("<!-- theirs -->\n")
    assert firewall.calls("write_config:before") == 0
    assert not list(firewall.root.glob("cf/conf/mailserver-edge*"))


def test_a_missing_package_is_reported_in_one_sentence(firewall, wanted, edge_site):
    (firewall.root / "usr/local/pkg/haproxy/haproxy.inc").unlink()
    assert "Package Manager" in refused(firewall, wanted, "precondition")
    assert "Package Manager" in refused(firewall, wanted, "precondition", verb="health")
    assert "Package Manager" in refused(firewall, rule_set(edge_site()), "precondition", kind="rules")


def test_a_disabled_package_is_not_enabled_behind_its_owner_s_back(firewall, wanted):
    firewall.edit(lambda root: root.find("installedpackages/haproxy").remove(root.find("installedpackages/haproxy/enable")))
    assert "not enabled" in refused(firewall, wanted, "precondition")


def test_the_backup_of_a_carp_pair_is_left_alone(firewall, wanted, edge_site):
    firewall.edit(lambda root: ET.SubElement(root.find("installedpackages/haproxy"), "carpdev").__setattr__("text", "192.0.2.3"))
    (firewall.root / "var/run/carp.backup").touch()
    assert "CARP master" in refused(firewall, wanted, "precondition")
    legacy = edge_site({"edge/legacy": {"address": "10.0.20.210"}, "edge/target": "legacy"})
    assert "CARP master" in refused(firewall, rule_set(legacy), "precondition", kind="rules")


def test_a_carp_setting_without_an_address_is_refused(firewall, applied):
    """The package asks whether the field is there: with an empty one it stops HAProxy at the next reload."""
    firewall.edit(lambda root: ET.SubElement(root.find("installedpackages/haproxy"), "carpdev"))
    for verb in ("plan", "apply"):
        assert "Carp monitor" in refused(firewall, applied, "precondition", verb=verb)
    assert firewall.banner(25).startswith("220 ")


def test_a_file_that_cannot_be_written_is_reported(firewall, wanted):
    (firewall.root / "disk_full").touch()
    assert "full disk" in refused(firewall, wanted, "write")


def test_without_a_journal_nothing_is_changed(firewall, wanted):
    (firewall.config_file.parent / "mailserver-edge-haproxy.json.new").mkdir()
    before = firewall.config_file.read_bytes()
    assert "journal" in refused(firewall, wanted, "write")
    assert firewall.config_file.read_bytes() == before


def test_a_port_that_another_program_holds_is_rolled_back(firewall, applied):
    """`haproxy -c` does not bind: only the start shows it, and then everything is as before."""
    with socket.create_server((firewall.address, 2526)), pytest.raises(AgentError) as error:
        firewall.client().call(
            "apply",
            "haproxy",
            changed(applied, lambda w: w["frontends"]["mailserver_proxy_25"].update(binds=[f"{firewall.address}:2526"])),
        )
    assert (error.value.step, error.value.rolled_back) == ("apply", True)
    assert firewall.banner(25).startswith("220 ")
    assert firewall.client().call("read", "haproxy", applied)["state"]["frontends"] == applied["frontends"]
    assert not firewall.client().call("apply", "haproxy", applied)["changed"]


@pytest.mark.parametrize("pair", [(31125, 31145), (30125, 31145), (31125, 30145)])
def test_node_ports_that_no_node_has_open_are_refused(firewall, applied, edge_site, pair):
    """Both ports count: where mail goes and where checks go."""
    wait(lambda: "UP L4OK" in str(firewall.client().call("health", "haproxy", applied)))
    moved = haproxy_set(edge_site({"cluster/node_ports": {"smtp": dict(zip(("proxy", "health"), pair, strict=True))}}))
    assert "no server of mailserver_nodes_smtp would answer" in refused(firewall, moved, "servers")


def test_a_mail_server_that_is_down_does_not_stop_an_apply(firewall, wanted):
    for node in firewall.nodes:
        node.stop()
    assert firewall.client().call("apply", "haproxy", wanted)["changed"]
