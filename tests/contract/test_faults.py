"""Broken off at every step: nothing is lost, the old listeners serve, and the next run brings it to its end."""

import itertools
import socket
import xml.etree.ElementTree as ET

import pytest

from components.edge.client import AgentError
from components.edge.desired import haproxy_set, rule_set
from components.edge.ssh import TransportError
from tests.contract.helpers import refused
from tests.contract.test_rules import nat, passes

pytestmark = pytest.mark.contract

# Every boundary between two steps is a call into the firewall's own code; the agent does nothing in between that it could lose.
HAPROXY_POINTS = [
    "read",
    "test:before",
    "test:after",
    "write_config:before",
    "write_config:after",
    "reload:before",
    "live:written",
    "socket:show servers state",
    "reload:after",
]
RULES_POINTS = [
    "read",
    "write_config:before",
    "write_config:after",
    "filter_configure:before",
    "filter_configure:after",
]
WAYS = ["kill", "die", "fatal"]


def on_path(firewall) -> bool:
    """Mail gets through, on the old way or the new one."""
    return firewall.banner(25).startswith("220 ") and firewall.banner(993, tls=True).startswith("* OK")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("point", HAPROXY_POINTS)
def test_an_apply_of_haproxy_survives(firewall, edge_site, point, way):
    old = haproxy_set(edge_site())
    nodes = {"node1": {"address": firewall.nodes[0].address, "state": "drain"}, "node2": {"address": firewall.nodes[1].address}}
    new = haproxy_set(edge_site({"cluster/nodes": nodes, "edge/test_frontend": True}))
    firewall.client().call("apply", "haproxy", old)
    config = firewall.config_file.read_bytes()

    firewall.fault(f"{point}|{way}")
    with pytest.raises((AgentError, TransportError)) as error:
        firewall.client().call("apply", "haproxy", new)
    assert on_path(firewall)
    state = firewall.client().call("read", "haproxy", new)["state"]
    parts = [{part: wanted[part] for part in ("pools", "frontends")} for wanted in (old, new)]
    assert state in parts, "one whole state or the other, never a mixture"
    if isinstance(error.value, AgentError):
        assert state == parts[0], "a run that could still speak has gone back"
        assert error.value.rolled_back or firewall.config_file.read_bytes() == config

    firewall.boot()
    assert on_path(firewall), "and so it is after a restart"
    firewall.client().call("apply", "haproxy", new)
    assert firewall.client().call("read", "haproxy", new) == {"ok": True, "step": "done", "state": parts[1], "problem": None}
    assert (firewall.address, 2525) in firewall.listeners()
    assert not list(firewall.root.glob("cf/conf/mailserver-edge*"))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("point", RULES_POINTS)
def test_an_apply_of_rules_survives(firewall, edge_site, point, way):
    legacy = edge_site({"edge/legacy": {"address": "10.0.20.210"}, "edge/target": "legacy"})
    old, new = rule_set(legacy), rule_set(edge_site({"edge/legacy": {"address": "10.0.20.210"}}))
    firewall.client().call("apply", "haproxy", haproxy_set(legacy))
    firewall.client().call("apply", "rules", old)

    firewall.fault(f"{point}|{way}")
    with pytest.raises((AgentError, TransportError)):
        firewall.client().call("apply", "rules", new)
    consistent(firewall)
    firewall.boot()
    consistent(firewall)
    firewall.client().call("apply", "rules", new)
    assert {nat(firewall)[port] for port in ("25", "465", "587", "993")} == {firewall.address}
    consistent(firewall)
    assert not list(firewall.root.glob("cf/conf/mailserver-edge*"))


def consistent(firewall) -> None:
    """All four redirects point to one place, and the pass rules to the same."""
    targets = {nat(firewall)[port].removesuffix(" round-robin") for port in ("25", "465", "587", "993")}
    assert len(targets) == 1
    target = targets.pop()
    assert all(f"{target} {port}" in passes(firewall) for port in ("25", "465", "587", "993"))


def test_a_connection_that_is_cut_at_any_step_of_haproxy_stops_nothing(firewall, edge_site):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    sets = [haproxy_set(edge_site({"edge/test_frontend": test_frontend})) for test_frontend in (True, False)]
    for point, wanted in zip(HAPROXY_POINTS, itertools.cycle(sets), strict=False):
        assert carried_on(firewall, point, "haproxy", wanted) == {part: wanted[part] for part in ("pools", "frontends")}, point
        assert ((firewall.address, 2525) in firewall.listeners()) == (wanted is sets[0]), point


def test_a_connection_that_is_cut_at_any_step_of_the_rules_stops_nothing(firewall, edge_site):
    sites = [edge_site({"edge/legacy": {"address": "10.0.20.210"}, "edge/target": target}) for target in ("haproxy", "legacy")]
    firewall.client().call("apply", "haproxy", haproxy_set(sites[0]))
    firewall.client().call("apply", "rules", rule_set(sites[1]))
    for point in RULES_POINTS:
        wanted = rule_set(sites[0])
        assert carried_on(firewall, point, "rules", wanted) == {part: wanted[part] for part in (*wanted["owned"], "aliases")}, point
        assert nat(firewall)["25"] == firewall.address, point
        consistent(firewall)
        firewall.client().call("apply", "rules", rule_set(sites[1]))


def carried_on(firewall, point, kind, wanted):
    """The SSH session is killed at `point`: mail flows all along, and the next run waits for this one and finds its work done."""
    firewall.fault(f"{point}|cut")
    with pytest.raises(TransportError):
        firewall.client().call("apply", kind, wanted)
    assert on_path(firewall), point
    answer = firewall.client().call("apply", kind, wanted)
    assert not answer["changed"], point
    assert on_path(firewall), point
    assert not list(firewall.root.glob("cf/conf/mailserver-edge*")), point
    return answer["after"]


def test_a_run_that_was_cut_off_while_going_back_is_put_right_by_the_next(firewall, edge_site):
    """Killed after a bad change was committed and before it was undone: the next failure goes back to the last good state."""
    good = haproxy_set(edge_site())
    firewall.client().call("apply", "haproxy", good)
    firewall.fault("write_config:after|kill")
    with pytest.raises(TransportError):
        firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"edge/test_frontend": True})))
    firewall.fault("reload:after|throw new Exception('refused');")
    with pytest.raises(AgentError) as error:
        firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"edge/test_frontend": True})))
    assert error.value.rolled_back
    assert firewall.client().call("read", "haproxy", good)["state"]["frontends"] == good["frontends"]


def test_a_journal_that_an_administrator_made_void_is_not_used(firewall, edge_site):
    """He changed our items after the interrupted run: going back later means back to his state."""
    wanted = haproxy_set(edge_site())
    firewall.client().call("apply", "haproxy", wanted)
    firewall.fault("write_config:after|kill")
    with pytest.raises(TransportError):
        firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"edge/test_frontend": True})))

    def change(root):
        for item in root.findall("installedpackages/haproxy/ha_pools/item"):
            if item.findtext("name") == "mailserver_nodes_smtp":
                item.find("checkinter").text = "3000"

    firewall.edit(change)
    firewall.fault("reload:after|throw new Exception('refused');")
    with pytest.raises(AgentError):
        firewall.client().call("apply", "haproxy", wanted)
    state = firewall.client().call("read", "haproxy", wanted)["state"]
    assert state["pools"]["mailserver_nodes_smtp"]["checkinter"] == "3000"


def test_a_run_that_is_killed_after_it_started_haproxy_leaves_no_lock_behind(firewall, edge_site):
    """HAProxy inherits what its starter holds open, and lives on: the lock must not be among that."""
    firewall.fault("reload:after|kill")
    with pytest.raises(TransportError):
        firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    assert firewall.haproxy_pids()
    assert not firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))["changed"]


@pytest.mark.parametrize("core", ["2.7.2", "2.8"])
def test_a_configuration_that_the_firewall_cannot_read_back_is_named(make_firewall, site, core):
    """A character outside of ASCII in a plain field: these versions write what they cannot read, and restore a backup."""
    firewall = make_firewall(core=core)
    firewall.edit(lambda root: root.find("unknown_to_us/keep").__setattr__("text", "caf\u00e9"))
    before, listeners = contents(firewall), firewall.listeners()
    with pytest.raises(AgentError, match=r"could not read back the config\.xml that it wrote, and restored its newest backup") as error:
        firewall.client().call("apply", "haproxy", haproxy_set(site("prod", {"edge": {"address": firewall.address}})))
    assert error.value.step == "write"
    assert contents(firewall) == before
    assert firewall.listeners() == listeners
    assert not list(firewall.root.glob("cf/conf/mailserver-edge*"))


def test_a_newer_firewall_keeps_such_a_character(make_firewall, site):
    firewall = make_firewall(core="master")
    firewall.edit(lambda root: root.find("unknown_to_us/keep").__setattr__("text", "caf\u00e9"))
    firewall.client().call("apply", "haproxy", haproxy_set(site("prod", {"edge": {"address": firewall.address}})))
    assert firewall.config().getroot().findtext("unknown_to_us/keep") == "caf\u00e9"


def contents(firewall) -> str:
    return ET.canonicalize(firewall.config_file.read_text(), strip_text=True)


def test_a_lock_that_a_killed_run_left_with_haproxy_is_refused_before_anything_is_written(firewall, edge_site):
    """HAProxy inherits the package's lock from a run that dies between starting it and unlocking; a restart of HAProxy frees it."""
    wanted, more = haproxy_set(edge_site()), haproxy_set(edge_site({"edge/test_frontend": True}))
    firewall.fault("started|kill")
    with pytest.raises(TransportError):
        firewall.client().call("apply", "haproxy", wanted)
    assert not firewall.client().call("apply", "haproxy", wanted)["changed"], "what it wrote is in force"
    assert "stop and start HAProxy (Status > Services > haproxy)" in refused(firewall, more, "mutex")
    assert not list(firewall.root.glob("cf/conf/mailserver-edge*"))
    firewall.service("stop")
    firewall.service("start")
    assert firewall.client().call("apply", "haproxy", more)["changed"]


def test_going_back_from_a_reload_that_changed_nothing_writes_nothing(firewall, edge_site):
    """HAProxy is down and cannot start: each try would add a revision to the history."""
    wanted = haproxy_set(edge_site())
    firewall.client().call("apply", "haproxy", wanted)
    firewall.kill_haproxy()
    config, writes = firewall.config_file.read_bytes(), firewall.calls("write_config:after")
    with socket.create_server((firewall.address, 25)), pytest.raises(AgentError) as error:
        firewall.client().call("apply", "haproxy", wanted)
    assert error.value.step == "rollback", str(error.value)
    assert (firewall.config_file.read_bytes(), firewall.calls("write_config:after")) == (config, writes)
    firewall.client().call("apply", "haproxy", wanted)
    assert firewall.banner(25).startswith("220 ")


def test_going_back_from_rules_that_changed_nothing_writes_nothing(firewall, edge_site):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    config = firewall.config_file.read_bytes()
    (firewall.root / "var/run/pf.nat").write_text("\n")
    (firewall.root / "var/run/pf.broken").touch()
    with pytest.raises(AgentError) as error:
        firewall.client().call("apply", "rules", rule_set(edge_site()))
    assert (error.value.step, error.value.rolled_back) == ("verify", True)
    assert firewall.config_file.read_bytes() == config


def test_a_haproxy_that_hangs_is_named_and_waited_for_ten_seconds_only(firewall, applied):
    """It takes connections to its control socket and says nothing; the package's own reader would wait without end, and hold the mutex."""
    firewall.shell("pkill -STOP -x haproxy")
    for verb in ("plan", "apply", "health", "read"):
        assert "does not answer on its control socket" in refused(firewall, applied, "precondition", verb=verb)
    firewall.shell("pkill -CONT -x haproxy")
    assert not firewall.client().call("apply", "haproxy", applied)["changed"]


def test_a_new_haproxy_that_hangs_is_replaced_by_one_with_the_old_configuration(firewall, applied, edge_site):
    firewall.fault("started|exec('pkill -STOP -x haproxy');")
    with pytest.raises(AgentError) as error:
        firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"edge/test_frontend": True})))
    assert (error.value.step, error.value.rolled_back) == ("verify", True), str(error.value)
    assert on_path(firewall)
    assert (firewall.address, 2525) not in firewall.listeners()
