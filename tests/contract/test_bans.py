"""Bans on the stand-in: rules in front of ours, tables, the cron job that loads the list; pf's own listings are the verdict."""

import http.server
import threading
import time
import xml.etree.ElementTree as ET

import pytest

from components.edge.client import AgentError
from components.edge.desired import haproxy_set, rule_set
from components.edge.differences import differences
from tests.contract.helpers import refused
from tests.contract.pf import PORTS, lets_in, table
from tests.contract.standin import NODES, TUNNEL
from tests.doctor import not_well
from tools.doctor import edge
from tools.doctor.examine import examine
from tools.doctor.patient import Patient

pytestmark = pytest.mark.contract

ATTACKER, BYSTANDER, RELAY, ATTACKER6 = "198.51.100.7", "198.51.100.8", "203.0.113.10", "2001:db9::7"
BANS = {"url": "https://lists.example.org/banned.txt", "allow": [f"{RELAY}/32"]}
LEGACY = {"address": "10.0.20.210"}


class Lists:
    """What the first node answers at the bans' NodePort: a text, or nothing at all."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.asked = 0
        lists = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lists.asked += 1
                self.send_response(404 if lists.text is None else 200)
                self.end_headers()
                self.wfile.write((lists.text if lists.text is not None else "no list yet").encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((NODES[0], 30150), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def say(self, *addresses: str) -> None:
        self.text = "\n".join((f"2001:db8::{int(time.time()) >> 16:x}:{int(time.time()) & 0xFFFF:x}", *addresses)) + "\n"


@pytest.fixture
def lists(firewall):
    lists = Lists()
    lists.say(ATTACKER, ATTACKER6)
    yield lists
    lists.server.shutdown()
    lists.server.server_close()


@pytest.fixture
def banning(edge_site):
    """The rule set of a site with bans."""
    return lambda changes=None: rule_set(
        edge_site({"edge/ipv6_address": TUNNEL, "edge/ipv6_interface": "opt2", "edge/bans": BANS} | (changes or {}))
    )


@pytest.fixture
def banned(firewall, edge_site, lists, banning):
    """A firewall with bans in force."""
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"edge/ipv6_address": TUNNEL, "edge/ipv6_interface": "opt2"})))
    assert firewall.client().call("apply", "rules", banning())["warnings"] == []
    return firewall


def names(firewall, path: str, field: str = "descr") -> list[str]:
    return [item.findtext(field) for item in firewall.config().getroot().findall(path)]


def test_a_listed_address_is_refused_on_all_ports_and_no_other(banned):
    for port in PORTS:
        assert not lets_in(banned, ATTACKER, port)
        assert lets_in(banned, BYSTANDER, port)
        assert not lets_in(banned, ATTACKER6, port, TUNNEL)
        assert lets_in(banned, "2001:db9::8", port, TUNNEL)


def test_own_networks_are_let_in_whatever_the_list_says(banned, lists):
    """The checked list never has such entries; the rule in front holds even if it had."""
    lists.say("0.0.0.0/0", "::/0", RELAY, banned.address)
    banned.shell("/etc/rc.update_urltables now forceupdate mailserver_banned")
    for port in PORTS:
        assert not lets_in(banned, BYSTANDER, port)
        assert all(lets_in(banned, own, port) for own in (RELAY, "10.0.20.101", "10.10.3.4", "192.168.1.1"))


def test_a_ban_that_ends_lets_the_address_in_again(banned, lists):
    lists.say()
    assert banned.shell((banned.root / "etc/crontab").read_text().split("root\t")[1].strip()).returncode == 0
    assert lets_in(banned, ATTACKER, "25")


@pytest.mark.parametrize("core", ["2.7.2", "2.8", "master"])
def test_each_generation_keeps_what_is_not_ours_and_has_nothing_to_do_the_second_time(make_firewall, site, core):
    """2.7.2 replaces a list that is appended to."""
    firewall = make_firewall(core=core)
    lists = Lists()
    lists.say(ATTACKER)
    try:
        job = "<minute>1</minute><hour>3</hour><mday>*</mday><month>*</month><wday>0</wday><who>root</who><command>/foreign</command>"
        firewall.edit(lambda root: root.append(ET.fromstring(f"<cron><item>{job}</item></cron>")))
        nodes = {f"node{number}": {"address": node.address} for number, node in enumerate(firewall.nodes, 1)}
        edge = {"address": firewall.address, "ssh": {"user": "root", "host_key": firewall.host_key}, "bans": BANS}
        site = site("prod", {"cluster/nodes": nodes, "edge": edge})
        firewall.client().call("apply", "haproxy", haproxy_set(site))
        foreign = names(firewall, "filter/rule"), names(firewall, "aliases/alias", "name")
        firewall.client().call("apply", "rules", rule_set(site))
        config = firewall.config_file.read_bytes()
        assert not firewall.client().call("apply", "rules", rule_set(site))["changed"]
        assert firewall.config_file.read_bytes() == config
        assert names(firewall, "cron/item", "command") == ["/foreign", "/etc/rc.update_urltables now forceupdate mailserver_banned"]
        assert set(foreign[0]) < set(names(firewall, "filter/rule"))
        assert set(foreign[1]) < set(names(firewall, "aliases/alias", "name"))
        firewall.client().call("apply", "rules", rule_set(site.model_copy(update={"edge": site.edge.model_copy(update={"bans": None})})))
        assert names(firewall, "cron/item", "command") == ["/foreign"]
        assert "rc.update_urltables" not in (firewall.root / "etc/crontab").read_text()
        assert names(firewall, "aliases/alias", "name") == foreign[1]
        assert not (firewall.root / "var/db/aliastables/mailserver_banned.txt").exists()
        assert not [name for name in names(firewall, "filter/rule") if "banned" in name]
    finally:
        lists.server.shutdown()
        lists.server.server_close()


def test_a_list_that_cannot_be_had_stops_no_mail_and_is_said(firewall, edge_site, banning):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"edge/ipv6_address": TUNNEL, "edge/ipv6_interface": "opt2"})))
    (warning,) = firewall.client().call("apply", "rules", banning())["warnings"]
    assert "was not loaded from http://10.0.20.101:30150/banned" in warning
    assert all(lets_in(firewall, BYSTANDER, port) for port in PORTS)
    health = firewall.client().call("health", "rules", banning())["bans"]
    assert (health["entries"], health["checked"]) == (0, 0)


def test_the_last_list_stays_while_none_can_be_had(banned, lists):
    before = table(banned, "mailserver_banned")
    for text in (None, ""):
        lists.text = text
        asked = lists.asked
        banned.shell("/etc/rc.update_urltables now forceupdate mailserver_banned")
        assert lists.asked == asked + 1
        assert table(banned, "mailserver_banned") == before
    assert banned.boot() == 0
    assert table(banned, "mailserver_banned") == before


def test_the_doctor_reads_the_age_of_the_table_from_pf(banned, lists, edge_site):
    """A file's time would not do: the core touches it when a download fails."""
    patient = Patient(edge_site({"edge/bans": BANS}), never_asked, never_asked, banned.client(), ())

    def found() -> dict[str, list[str]]:
        return not_well(examine(patient, [edge.bans], lambda check: None))

    assert found() == {}
    lists.text = f"2001:db8::{int(time.time() - 3600) >> 16:x}:{int(time.time() - 3600) & 0xFFFF:x}\n{ATTACKER}\n"
    banned.shell("/etc/rc.update_urltables now forceupdate mailserver_banned")
    assert "1 addresses, from a list of 60 minutes ago" in found()["degraded edge.bans"][0]
    lists.text = "2001:db8::\n"
    banned.shell("/etc/rc.update_urltables now forceupdate mailserver_banned")
    assert "no list was ever loaded" in found()["degraded edge.bans"][0]


def never_asked(*_: str) -> None:
    raise AssertionError("the firewall is asked over SSH alone")


def drifted(root: ET.Element, case: str) -> None:
    rules = root.find("filter")
    first = next(item for item in rules.findall("rule") if item.findtext("descr") == "mailserver banned")
    if case == "behind":
        rules.remove(first)
        rules.append(first)
    elif case == "first":
        rules.remove(first)
        rules.insert(0, first)
    elif case == "gone":
        rules.remove(first)
    elif case == "disabled":
        ET.SubElement(first, "disabled")
    elif case == "source":
        first.find("source/address").text = "webservers"
    elif case == "cron":
        root.remove(root.find("cron"))
    elif case == "list":
        next(item for item in root.findall("aliases/alias") if item.findtext("name") == "mailserver_banned").find(
            "url"
        ).text = "http://other.example/"
    elif case == "allowed":
        next(item for item in root.findall("aliases/alias") if item.findtext("name") == "mailserver_never_banned").find(
            "address"
        ).text = RELAY
    elif case == "past":
        next(item for item in root.findall("nat/rule") if item.findtext("descr") == "mailserver smtp").find(
            "associated-rule-id"
        ).text = "pass"


@pytest.mark.parametrize("case", ["behind", "first", "gone", "disabled", "source", "cron", "list", "allowed", "past"])
def test_drift_is_seen_and_put_right(banned, banning, case):
    banned.edit(lambda root: drifted(root, case))
    plan = banned.client().call("plan", "rules", banning())
    assert differences(plan["before"], plan["after"]), case
    assert banned.client().call("apply", "rules", banning())["changed"]
    state = banned.client().call("read", "rules", banning())
    assert state["problem"] is None
    assert {part: state["state"][part] for part in ("redirects", "bans", "aliases", "cron")} == {
        part: banning()[part] for part in ("redirects", "bans", "aliases", "cron")
    }
    assert not lets_in(banned, ATTACKER, "25")
    assert lets_in(banned, RELAY, "25")


def test_a_cron_that_does_not_run_the_job_is_drift_though_the_configuration_is_right(banned, banning):
    (banned.root / "etc/crontab").write_text("\n")
    assert "cron does not run" in banned.client().call("read", "rules", banning())["problem"]
    banned.client().call("apply", "rules", banning())
    assert "forceupdate mailserver_banned" in (banned.root / "etc/crontab").read_text()


@pytest.mark.parametrize("source", ["webservers", "any"])
def test_rules_that_pf_has_in_another_order_are_drift(banned, banning, source):
    rules = banned.root / "var/run/pf.rules"
    sources = "any" if source == "any" else f"<{source}>"
    line = f'pass in quick on vtnet0 inet proto tcp from {sources} to {banned.address} port = 587 flags S/SA label "USER_RULE: x"'
    rules.write_text(f"{line}\n{rules.read_text()}")
    problem = banned.client().call("read", "rules", banning())["problem"]
    assert (problem is not None and "does not ask the rule" in problem) is (source == "any")


def test_a_foreign_rule_that_passes_mail_comes_after_the_bans(firewall, edge_site, lists, banning):
    rule = (
        "<rule><type>pass</type><interface>wan</interface><ipprotocol>inet</ipprotocol><protocol>tcp</protocol><source><any/></source>"
        "<destination><any/><port>1-1024</port></destination><descr>open</descr></rule>"
    )
    firewall.edit(lambda root: root.find("filter").insert(0, ET.fromstring(rule)))
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site({"edge/ipv6_address": TUNNEL, "edge/ipv6_interface": "opt2"})))
    firewall.client().call("apply", "rules", banning())
    assert names(firewall, "filter/rule")[:3] == ["mailserver never banned", "mailserver banned", "open"]


def test_a_floating_rule_that_passes_mail_is_refused(banned, banning):
    rule = (
        "<rule><floating>yes</floating><quick>yes</quick><type>pass</type><interface>wan</interface><ipprotocol>inet</ipprotocol>"
        "<protocol>tcp</protocol><source><any/></source><destination><any/></destination><descr>let all in</descr></rule>"
    )
    banned.edit(lambda root: root.find("filter").append(ET.fromstring(rule)))
    assert "`let all in` passes mail before mailserver banned" in refused(banned, banning(), "conflict", kind="rules")


def test_bans_follow_a_roll_back_to_the_legacy_address(banned, banning):
    banned.client().call("apply", "rules", banning({"edge/legacy": LEGACY, "edge/target": "legacy"}))
    assert not lets_in(banned, ATTACKER, "25", "<mailserver>")
    assert lets_in(banned, BYSTANDER, "25", "<mailserver>")


def test_bans_that_pf_does_not_take_are_rolled_back(firewall, edge_site, lists, banning):
    v6 = {"edge/ipv6_address": TUNNEL, "edge/ipv6_interface": "opt2"}
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site(v6)))
    firewall.client().call("apply", "rules", rule_set(edge_site(v6)))
    before = [names(firewall, path) for path in ("filter/rule", "aliases/alias", "cron/item")]
    (firewall.root / "var/run/pf.broken").touch()
    with pytest.raises(AgentError) as error:
        firewall.client().call("apply", "rules", banning())
    assert (error.value.step, error.value.rolled_back) == ("verify", True)
    assert [names(firewall, path) for path in ("filter/rule", "aliases/alias", "cron/item")] == before
    assert "rc.update_urltables" not in (firewall.root / "etc/crontab").read_text()


def test_a_removal_that_pf_does_not_follow_is_undone(banned, edge_site, banning):
    order = names(banned, "filter/rule")
    (banned.root / "var/run/pf.broken").touch()
    with pytest.raises(AgentError, match="pf still has the rule mailserver") as error:
        banned.client().call("apply", "rules", rule_set(edge_site({"edge/ipv6_address": TUNNEL, "edge/ipv6_interface": "opt2"})))
    assert error.value.rolled_back
    assert names(banned, "filter/rule") == order
    assert names(banned, "cron/item", "command") == ["/etc/rc.update_urltables now forceupdate mailserver_banned"]


def test_deleting_takes_the_bans_too(banned, banning):
    banned.client().call("delete", "rules", banning())
    assert names(banned, "filter/rule") == ["NAT web", "Default allow LAN to any rule"]
    assert names(banned, "aliases/alias", "name") == ["webservers"]
    assert names(banned, "cron/item") == []


def test_a_state_from_before_there_were_bans_can_still_be_read_and_deleted(banned, banning):
    old = {key: value for key, value in banning().items() if key not in ("bans", "cron")}
    old["owned"] = {key: value for key, value in old["owned"].items() if key not in ("bans", "cron")}
    old["aliases"], old["absent_aliases"] = {}, []
    assert banned.client().call("read", "rules", old)["problem"] is None
    assert banned.client().call("delete", "rules", old)["changed"]


def test_an_alias_of_bans_that_another_rule_uses_stays(banned, banning, edge_site):
    def use(root):
        next(item for item in root.findall("filter/rule") if item.findtext("descr") == "NAT web").find("source").clear()
        source = next(item for item in root.findall("filter/rule") if item.findtext("descr") == "NAT web").find("source")
        ET.SubElement(source, "address").text = "mailserver_banned"

    banned.edit(use)
    off = rule_set(edge_site({"edge/ipv6_address": TUNNEL, "edge/ipv6_interface": "opt2"}))
    assert "alias mailserver_banned cannot be removed" in refused(banned, off, "conflict", kind="rules")
    banned.client().call("delete", "rules", banning())
    assert "mailserver_banned" in names(banned, "aliases/alias", "name")
