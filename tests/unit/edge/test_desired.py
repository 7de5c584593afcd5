"""What the firewall should hold, as data and as HAProxy's configuration; settings that would harm mail are refused."""

import shutil
import subprocess

import pytest

from components.edge.agent import AGENT_DIR, AGENT_FILES, agent_program
from components.edge.desired import haproxy_set, rule_set
from components.edge.differences import differences
from components.edge.haproxy_cfg import haproxy_cfg
from components.edge.provider import HaproxySetProvider
from components.errors import UserError
from components.listeners import LISTENERS

LEGACY = {"address": "10.0.20.210"}


def test_the_live_names_are_kept(site):
    """Existing items with these names are adopted; an item of another name would compete for the same port."""
    desired = haproxy_set(site())
    assert {name: frontend["pool"] for name, frontend in desired["frontends"].items()} == {
        "mailserver_proxy_25": "mailserver_nodes_smtp",
        "mailserver_proxy_465": "mailserver_nodes_smtps",
        "mailserver_proxy_587": "mailserver_nodes_sub",
        "mailserver_proxy_993": "mailserver_nodes_imaps",
        "mailserver_proxy_test": "mailserver_nodes",
    }
    assert set(desired["pools"]) == {frontend["pool"] for frontend in desired["frontends"].values()}


def test_every_server_has_its_checks_split_from_its_traffic(site):
    """A check that carries a PROXY header kills submission; `port` alone turns that off, `check-send-proxy` turns it on again."""
    for name, pool in haproxy_set(site())["pools"].items():
        for server in pool["servers"].values():
            words = server["advanced"].split()
            assert "send-proxy-v2" in words and "check-send-proxy" not in words, name
            assert words[words.index("port") + 1] != server["port"], name
        assert pool["check_type"] == "Basic"
        assert "option redispatch 1" in pool["advanced_backend"].splitlines()


def test_only_an_ipv6_bind_may_wait_for_its_address(site):
    """Bound like this, HAProxy starts without the tunnel; a missing IPv4 address is a mistake that must show."""
    frontend = "mailserver_proxy_25"
    assert haproxy_set(site())["frontends"][frontend]["binds"] == ["10.0.20.1:25", "[2001:470:6e:43d::2]:25 (transparent)"]
    plain = haproxy_set(site(changes={"edge/ipv6_transparent": False}))
    assert plain["frontends"][frontend]["binds"] == ["10.0.20.1:25", "[2001:470:6e:43d::2]:25"]


def test_the_legacy_address_is_asked_for_every_service(site):
    services = rule_set(site(changes={"edge/legacy": LEGACY}))["legacy"]
    assert {(service["address"], service["port"], service["tls"], service["banner"]) for service in services.values()} == {
        ("10.0.20.210", "25", "", "220"),
        ("10.0.20.210", "465", "yes", "220"),
        ("10.0.20.210", "587", "", "220"),
        ("10.0.20.210", "993", "yes", "* OK"),
    }
    assert rule_set(site())["legacy"] == {}


def test_servers_follow_nodes_and_node_ports(site):
    changes = {"cluster/node_ports": {"imaps": {"proxy": 31128, "health": 31148}}, "cluster/nodes/k8s-node5": {"address": "10.0.20.105"}}
    servers = haproxy_set(site(changes=changes))["pools"]["mailserver_nodes_imaps"]["servers"]
    assert list(servers) == [f"k8s-node{n}" for n in range(1, 6)]
    assert {(server["port"], server["advanced"].split()[2]) for server in servers.values()} == {("31128", "31148")}


def test_a_changed_node_port_is_open_before_the_old_one_closes(recording, site):
    """One `up` with `previous` opens the new pair and moves HAProxy; the next, without, closes the old pair."""
    ports = {"proxy": 31125, "health": 31145, "previous": [30125, 30145]}
    (service,) = [
        thing
        for thing in recording("prod", {"cluster/node_ports": {"smtp": ports}}).kubernetes()
        if thing["metadata"]["name"] == "mailserver-proxy"
    ]
    leads = {port["nodePort"]: port["targetPort"] for port in service["spec"]["ports"]}
    assert (leads[31125], leads[30125]) == (2525, 2525)
    assert (leads[31145], leads[30145]) == (25, 25)
    numbers = [port["port"] for port in service["spec"]["ports"]]
    assert len(set(numbers)) == len(numbers)
    with pytest.raises(UserError, match="30126 is already used by"):
        site(changes={"cluster/node_ports": {"smtp": ports | {"previous": [30126, 30145]}}})


def test_a_node_port_that_haproxy_uses_cannot_close_before_it_uses_another(site):
    """The engine hands the provider what was declared last, so a preview can tell."""

    def reasons(before, after):
        old, new = ({"wanted": haproxy_set(site(changes={"cluster/node_ports": {"smtp": ports}}))} for ports in (before, after))
        return [failure.reason for failure in HaproxySetProvider().check(old, new).failures]

    old, new = {"proxy": 30125, "health": 30145}, {"proxy": 31125, "health": 31145}
    both = new | {"previous": [30125, 30145]}
    assert [reasons(*step) for step in ((old, old), (old, both), (both, new), (both, old | {"previous": [31125, 31145]}))] == [[]] * 4
    for step in ((old, new), (old, old | {"health": 31145}), (both, old)):
        (reason,) = reasons(*step)
        assert "cluster.node_ports.smtp: " in reason
    assert "add `previous: [30125, 30145]`" in reasons(old, new)[0]
    assert HaproxySetProvider().check({}, {"wanted": haproxy_set(site())}).failures == []


def test_nothing_listens_everywhere(site):
    for frontend in haproxy_set(site())["frontends"].values():
        assert [bind.rpartition(":")[0] for bind in frontend["binds"]] == ["10.0.20.1", "[2001:470:6e:43d::2]"]


def test_no_two_frontends_share_an_address_and_port(site):
    binds = [bind for frontend in haproxy_set(site())["frontends"].values() for bind in frontend["binds"]]
    assert len(set(binds)) == len(binds)


def test_redirects_point_where_their_pass_rules_do(site):
    for changes in ({}, {"edge/legacy": LEGACY, "edge/target": "legacy"}):
        for redirect in rule_set(site(changes=changes))["redirects"].values():
            assert redirect["pass_rule"] == f"{redirect['target']}:{redirect['local_port']}"


def test_only_the_path_through_haproxy_has_a_precondition(site):
    assert set(rule_set(site())["gates"]) == {f"mailserver_proxy_{listener.port}" for listener in LISTENERS}
    assert rule_set(site(changes={"edge/legacy": LEGACY, "edge/target": "legacy"}))["gates"] == {}


def test_the_gate_speaks_tls_where_the_service_does(site):
    """RFC 8314, section 3: submissions and imaps are TLS from the first byte."""
    gates = rule_set(site())["gates"]
    assert {gate["port"] for gate in gates.values() if gate["tls"]} == {"465", "993"}


def test_the_alias_comes_with_legacy_and_goes_by_its_own_setting(site):
    assert rule_set(site())["aliases"] == {} and "mailserver" not in rule_set(site())["absent_aliases"]
    assert rule_set(site(changes={"edge/legacy": LEGACY}))["aliases"]["mailserver"]["address"] == "10.0.20.210"
    assert "mailserver" in rule_set(site(changes={"edge/remove_legacy_alias": True}))["absent_aliases"]


def test_ipv6_comes_by_its_own_interface(site):
    rules = rule_set(site())["passes"].values()
    assert {(rule["interface"], rule["destination"]) for rule in rules} == {("opt2", "2001:470:6e:43d::2")}
    assert rule_set(site(changes={"edge/ipv6_address": ..., "edge/ipv6_interface": ...}))["passes"] == {}


@pytest.mark.skipif(not shutil.which("haproxy"), reason="haproxy is not installed")
@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_haproxy_accepts_the_rendered_configuration(site, tmp_path, stack):
    file = tmp_path / "haproxy.cfg"
    file.write_text(haproxy_cfg(haproxy_set(site(stack))))
    result = subprocess.run(["haproxy", "-c", "-V", "-f", file], capture_output=True, text=True, check=False)
    assert "Configuration file is valid" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edge/target": "nowhere"}, "edge.target: "),
        ({"edge/ssh/host_key": "ssh-ed25519 nonsense"}, "edge.ssh.host_key: write the firewall's public host key"),
        ({"edge/ssh/host_key": ...}, "edge.ssh.host_key: is required"),
        ({"edge/ssh/user": "admin; reboot"}, "edge.ssh.user: "),
        ({"edge/wan_interface": "WAN (igb0)"}, "edge.wan_interface: write pfSense's own name"),
    ],
)
def test_settings_that_would_harm_mail_are_refused_by_name(site, changes, sentence):
    with pytest.raises(UserError) as error:
        site(changes=changes)
    assert sentence in str(error.value)


def test_differences_read_like_the_firewall():
    before = {
        "frontends": {"f": {"binds": ["*:25"], "status": "active"}},
        "redirects": {"r": {"target": "mailserver"}},
        "aliases": {"a": {}},
    }
    after = {"frontends": {"f": {"binds": ["10.0.20.1:25", "[::1]:25"], "status": "active"}}, "redirects": {"r": {"target": "10.0.20.1"}}}
    assert differences(before, after) == [
        "~ frontend f: bind 10.0.20.1:25 and [::1]:25 (was *:25)",
        "~ redirect r: target 10.0.20.1 (was mailserver)",
        "- alias a",
    ]


def test_the_agent_is_every_file_and_starts_with_its_very_last_line():
    """A program that is cut off anywhere must do nothing, so nothing may run before everything has arrived."""
    assert sorted(AGENT_FILES) == sorted(path.name for path in AGENT_DIR.glob("*.php"))
    assert agent_program().rstrip("\n").splitlines()[-1] == "edge_main($request);"


def test_nothing_deprecated_or_gone_is_called():
    """Removed or deprecated in the configuration interface of the releases after 2.7.2; `parse_config` only where nothing else is."""
    text = agent_program()
    for gone in ("init_config_arr(", "getarraybyref(", "log_error(", "global $config", "$config["):
        assert gone not in text
    assert text.count("parse_config(") == 1
