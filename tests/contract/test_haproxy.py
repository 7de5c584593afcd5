"""HAProxy's pools and frontends on the stand-in: applied, left alone when right, and never at mail's cost when wrong."""

import base64
import json
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET

import pytest

from components.edge.desired import TEST_FRONTEND, TEST_POOL, haproxy_set, rule_set
from components.edge.differences import differences
from components.edge.haproxy_cfg import haproxy_cfg
from components.listeners import LISTENERS
from tests.contract.helpers import frontend_item, pool_item, refused
from tests.contract.standin import VERSIONS, wait

pytestmark = pytest.mark.contract

MAIL = {25, 465, 587, 993}


def test_it_listens_where_it_should_and_nowhere_else(firewall, applied):
    assert firewall.listeners() == {(firewall.address, port) for port in MAIL | {443}}


def test_the_mail_server_sees_the_client(firewall, applied):
    client = firewall.client_address
    assert firewall.banner(25, source=client).startswith("220 ")
    assert firewall.banner(465, tls=True, source=client).startswith("220 ")
    assert firewall.banner(587, source=client).startswith("220 ")
    assert firewall.banner(993, tls=True, source=client).startswith("* OK")
    assert sum(node.clients.count(client) for node in firewall.nodes) == 4


def test_a_plan_writes_nothing_and_says_what_an_apply_then_does(firewall, wanted):
    before = firewall.config_file.read_bytes()
    plan = firewall.client().call("plan", "haproxy", wanted)
    assert firewall.config_file.read_bytes() == before
    lines = differences(plan["before"], plan["after"])
    assert f"+ frontend mailserver_proxy_25: bind {firewall.address}:25" in "\n".join(lines)
    answer = firewall.client().call("apply", "haproxy", wanted)
    assert differences(answer["before"], answer["after"]) == lines
    assert answer["after"] == {part: wanted[part] for part in ("pools", "frontends")}


@pytest.mark.parametrize("core", VERSIONS)
def test_a_second_apply_changes_nothing_on_any_version(make_firewall, site, core):
    firewall = make_firewall(core=core)
    wanted = haproxy_set(site("prod", {"edge": {"address": firewall.address}}))
    assert firewall.client().call("apply", "haproxy", wanted)["changed"]
    config, writes, starts = firewall.config_file.read_bytes(), firewall.calls("write_config:after"), firewall.calls("start")
    assert not firewall.client().call("apply", "haproxy", wanted)["changed"]
    assert (firewall.config_file.read_bytes(), firewall.calls("write_config:after"), firewall.calls("start")) == (config, writes, starts)


def test_an_apply_is_one_write_and_one_reload(firewall, wanted):
    starts = firewall.calls("start")
    firewall.client().call("apply", "haproxy", wanted)
    assert (firewall.calls("write_config:after"), firewall.calls("start") - starts) == (1, 1)


def test_the_render_is_what_the_package_generates(firewall, applied):
    """Sections of ours on the firewall, less the one line that needs its socket, against the rendered file."""
    generated = (firewall.root / "var/etc/haproxy/haproxy.cfg").read_text()
    assert sections(haproxy_cfg(applied), "mailserver_") == sections(generated, "mailserver_")


def sections(text: str, mark: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in (" ".join(line.split()) for line in text.splitlines()):
        if line.startswith(("frontend ", "backend ", "global", "listen ")):
            name = line
        if line and mark in name and line != "load-server-state-from-file global":
            found.setdefault(name, []).append(line)
    return found


def test_a_reload_drops_no_connection(firewall, applied, edge_site):
    failures, done, stop = [], [0], threading.Event()

    def client() -> None:
        while not stop.is_set():
            try:
                assert firewall.banner(25).startswith("220 ")
                done[0] += 1
            except (OSError, AssertionError) as error:
                failures.append(error)

    held = socket.create_connection((firewall.address, 25))
    assert held.recv(100).startswith(b"220")
    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for state in ("drain", "active", "out", "active"):
        nodes = {f"node{n}": {"address": node.address, "state": state if n == 1 else "active"} for n, node in enumerate(firewall.nodes, 1)}
        assert firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"cluster/nodes": nodes})))["changed"]
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == [] and done[0] > 50
    held.sendall(b"NOOP\r\n")
    assert held.recv(100) == b"NOOP\r\n", "a connection that was open before outlives the reloads"


def test_mail_moves_to_other_node_ports_while_both_pairs_are_open(firewall, applied, edge_site):
    for node in firewall.nodes:
        node.listen(31125, "smtp")
        node.listen(31145, None)
    moved = haproxy_set(edge_site({"cluster/node_ports": {"smtp": {"proxy": 31125, "health": 31145, "previous": [30125, 30145]}}}))
    answer = firewall.client().call("apply", "haproxy", moved)
    assert "server node1: port 31125 (was 30125)" in "\n".join(differences(answer["before"], answer["after"]))
    assert firewall.banner(25).startswith("220 ")


def test_a_node_that_drains_gets_no_new_connection_and_is_still_checked(firewall, applied, edge_site):
    one, two = firewall.nodes
    nodes = {"node1": {"address": one.address, "state": "drain"}, "node2": {"address": two.address}}
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"cluster/nodes": nodes})))
    one.clients.clear()
    for _ in range(6):
        firewall.banner(25)
    assert one.clients == []

    def checked():
        servers = firewall.client().call("health", "haproxy", applied)["servers"]["mailserver_nodes_smtp_ipvANY"]
        return servers["node1"].endswith("L4OK")

    wait(checked)


def test_a_node_that_is_out_is_disabled(firewall, applied, edge_site):
    nodes = {"node1": {"address": firewall.nodes[0].address, "state": "out"}, "node2": {"address": firewall.nodes[1].address}}
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"cluster/nodes": nodes})))
    servers = firewall.client().call("health", "haproxy", applied)["servers"]
    assert {states["node1"].split()[0] for states in servers.values()} == {"MAINT"}


def test_a_dead_node_loses_no_connection(firewall, applied):
    firewall.nodes[0].stop()
    for _ in range(8):
        assert firewall.banner(25).startswith("220 ")


def test_drift_is_shown_and_repaired(firewall, applied):
    def meddle(root):
        pool_item(root, "mailserver_nodes_sub").find("checkinter").text = "120000"
        server = pool_item(root, "mailserver_nodes_smtp").find("ha_servers/item")
        server.find("advanced").text = "send-proxy-v2 check-send-proxy"
        frontend_item(root, "mailserver_proxy_25").find("a_extaddr/item/extaddr").text = "lan_ipv4"
        ET.SubElement(frontend_item(root, "mailserver_proxy_587"), "max_connections").text = "500"
        frontends = root.find("installedpackages/haproxy/ha_backends")
        frontends.remove(frontend_item(root, "mailserver_proxy_993"))

    firewall.edit(meddle)
    plan = firewall.client().call("plan", "haproxy", applied)
    lines = "\n".join(differences(plan["before"], plan["after"]))
    assert "~ pool mailserver_nodes_sub: checkinter 2000 (was 120000)" in lines
    assert "server node1: advanced send-proxy-v2 port 30145 fall 2 rise 2 (was send-proxy-v2 check-send-proxy)" in lines
    assert f"~ frontend mailserver_proxy_25: bind {firewall.address}:25 (was (interface lan_ipv4):25)" in lines
    assert "+ frontend mailserver_proxy_993" in lines
    firewall.client().call("apply", "haproxy", applied)
    assert firewall.client().call("read", "haproxy", applied)["state"] == {part: applied[part] for part in ("pools", "frontends")}
    root = firewall.config().getroot()
    assert frontend_item(root, "mailserver_proxy_587").findtext("max_connections") == "500", "a field that is not ours stays"


def test_a_bind_that_speaks_tls_or_more_is_drift(firewall, applied):
    """Offloading, enabled in the web interface: the mail server's own STARTTLS and banner would be lost."""

    def meddle(root):
        bind = frontend_item(root, "mailserver_proxy_25").find("a_extaddr/item")
        ET.SubElement(bind, "extaddr_ssl").text = "yes"
        ET.SubElement(bind, "extaddr_advanced").text = "accept-proxy"

    firewall.edit(meddle)
    plan = firewall.client().call("plan", "haproxy", applied)
    bind = f"{firewall.address}:25"
    assert differences(plan["before"], plan["after"]) == [f"~ frontend mailserver_proxy_25: bind {bind} (was {bind} (SSL, accept-proxy))"]
    firewall.client().call("apply", "haproxy", applied)
    item = frontend_item(firewall.config().getroot(), "mailserver_proxy_25").find("a_extaddr/item")
    assert (item.find("extaddr_ssl"), item.find("extaddr_advanced")) == (None, None)


def test_what_the_predecessor_left_is_adopted(firewall, wanted):
    """Same names, a literal address that listens everywhere, no redispatch: taken over in place, nothing twice."""

    def predecessor(root):
        pools, frontends = (root.find(f"installedpackages/haproxy/{part}") for part in ("ha_pools", "ha_backends"))
        pools.append(
            ET.fromstring(
                "<item><name>mailserver_nodes_smtp</name><id>107</id><check_type>TCP</check_type><checkinter>5000</checkinter>"
                f"<ha_servers><item><status>active</status><name>node1</name><address>{firewall.nodes[0].address}</address>"
                "<port>30125</port><weight>10</weight><id>108</id><advanced>send-proxy-v2</advanced></item></ha_servers></item>"
            )
        )
        frontends.append(
            ET.fromstring(
                "<item><name>mailserver_proxy_25</name><status>active</status><type>tcp</type>"
                "<backend_serverpool>mailserver_nodes_smtp</backend_serverpool><a_extaddr><item>"
                f"<extaddr>{firewall.address}</extaddr><extaddr_port>25</extaddr_port></item></a_extaddr></item>"
            )
        )

    firewall.edit(predecessor)
    firewall.boot()
    assert ("0.0.0.0", 25) in firewall.listeners()
    plan = firewall.client().call("plan", "haproxy", wanted)
    assert f"bind {firewall.address}:25 (was (interface {firewall.address}):25)" in "\n".join(differences(plan["before"], plan["after"]))
    firewall.client().call("apply", "haproxy", wanted)
    wait(lambda: firewall.listeners() == {(firewall.address, port) for port in MAIL | {443}})
    root = firewall.config().getroot()
    assert pool_item(root, "mailserver_nodes_smtp").findtext("id") == "107"
    assert pool_item(root, "mailserver_nodes_smtp").findtext("ha_servers/item/id") == "108"


def test_an_item_of_ours_that_is_no_longer_wanted_goes(firewall, edge_site):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"edge/test_frontend": True})))
    assert (firewall.address, 2525) in firewall.listeners()
    answer = firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    assert differences(answer["before"], answer["after"]) == [f"- pool {TEST_POOL}", f"- frontend {TEST_FRONTEND}"]
    wait(lambda: (firewall.address, 2525) not in firewall.listeners())


def test_a_pool_in_use_is_not_deleted(firewall, applied):
    def use(root):
        frontend_item(root, "internal_https_443").find("backend_serverpool").text = "mailserver_nodes_smtp"

    firewall.edit(use)
    assert "internal_https_443" in refused(firewall, applied, "conflict", verb="delete")


def test_frontends_that_redirects_point_to_are_not_deleted(firewall, applied, edge_site):
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    assert "points to it" in refused(firewall, applied, "conflict", verb="delete")


def test_deleting_leaves_what_is_not_ours(firewall, applied):
    firewall.client().call("delete", "haproxy", applied)
    root = firewall.config().getroot()
    assert [item.findtext("name") for item in root.findall("installedpackages/haproxy/ha_pools/item")] == ["traefik"]
    wait(lambda: firewall.listeners() == {(firewall.address, 443)})
    assert not firewall.client().call("delete", "haproxy", applied)["changed"], "a second delete is not an error"


def test_deleting_the_last_frontend_of_all_stops_haproxy(firewall, applied):
    """HAProxy refuses a configuration without a listener; there is nothing left to serve."""
    firewall.edit(lambda root: root.find("installedpackages/haproxy/ha_backends").remove(frontend_item(root, "internal_https_443")))
    firewall.client().call("apply", "haproxy", applied)
    firewall.client().call("delete", "haproxy", applied)
    wait(lambda: not firewall.listeners())
    assert not firewall.client().call("delete", "haproxy", applied)["changed"]
    assert firewall.client().call("apply", "haproxy", applied)["changed"]
    assert firewall.banner(25).startswith("220 ")


def test_a_restart_serves_what_was_applied(firewall, applied):
    listeners = firewall.listeners()
    assert firewall.boot() == 0
    assert firewall.listeners() == listeners
    assert firewall.banner(25).startswith("220 ")


def test_advanced_lines_are_base64_as_the_package_expects(firewall, applied):
    item = pool_item(firewall.config().getroot(), "mailserver_nodes_smtp")
    assert base64.b64decode(item.findtext("advanced_backend")).decode().splitlines()[0] == "option redispatch 1"


def test_two_runs_at_once_wait_for_one_another(firewall, wanted):
    """From two machines: the lock on the firewall, not the one in the client, keeps them apart."""
    program = (
        "import sys, json; from components.edge.client import Firewall; from components.edge.connection import Connection;"
        "a = json.load(sys.stdin); print(Firewall(Connection(**a['c']), a['k']).call('apply', 'haproxy', a['w'])['changed'])"
    )
    connection = firewall.connection()
    text = json.dumps({"c": connection.__dict__, "k": firewall.private_key, "w": wanted})
    runs = [subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) for _ in range(3)]
    answers = [run.communicate(text, timeout=60)[0].strip() for run in runs]
    assert sorted(answers) == ["False", "False", "True"]
    assert firewall.calls("write_config:after") == 1


def test_idle_clients_outlive_the_longest_imap_silence(applied):
    for listener in LISTENERS:
        idle = int(listener.idle.total_seconds() * 1000)
        frontend = applied["frontends"][f"mailserver_proxy_{listener.port}"]
        assert int(frontend["client_timeout"]) == int(applied["pools"][frontend["pool"]]["server_timeout"]) == idle
    assert int(applied["frontends"]["mailserver_proxy_993"]["client_timeout"]) > 29 * 60 * 1000
