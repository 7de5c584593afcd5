"""A pass rule lets nothing in where another rule blocks first: ours go in front, or the one in the way is named."""

import xml.etree.ElementTree as ET

import pytest

from components.edge.client import AgentError
from components.edge.desired import haproxy_set, rule_set
from components.edge.differences import differences
from tests.contract.helpers import refused

pytestmark = pytest.mark.contract

BLOCK = "<type>block</type><interface>wan</interface><ipprotocol>inet</ipprotocol><source><any/></source><destination><any/></destination>"


def block(text: str, descr: str = "block the rest") -> ET.Element:
    return ET.fromstring(f"<rule>{text}<descr>{descr}</descr><tracker>1690000077</tracker></rule>")


def pf(firewall) -> list[str]:
    return (firewall.root / "var/run/pf.rules").read_text().splitlines()


def line_of(firewall, text: str) -> int:
    (found,) = (number for number, line in enumerate(pf(firewall)) if text in line)
    return found


@pytest.fixture
def ready(firewall, edge_site):
    """HAProxy serves; no rule of ours is there yet."""
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    return firewall


COVERING = {
    "everything": BLOCK,
    "rejecting": BLOCK.replace("block", "reject"),
    "both families": BLOCK.replace("inet</ipprotocol>", "inet46</ipprotocol>"),
    "TCP and UDP": f"{BLOCK}<protocol>tcp/udp</protocol>",
    "a range of ports": BLOCK.replace("<any/></destination>", "<any/><port>1-1024</port></destination>") + "<protocol>tcp</protocol>",
    "the firewall": BLOCK.replace("<any/></destination>", "<network>(self)</network></destination>"),
    "its network": BLOCK.replace("<any/></destination>", "<address>10.0.20.0/24</address></destination>"),
    "an alias": BLOCK.replace("<any/></destination>", "<address>insiders</address></destination>"),
    "all but another": BLOCK.replace("<any/></destination>", "<address>10.0.30.1</address><not/></destination>"),
}


@pytest.mark.parametrize("kind", COVERING)
def test_new_rules_go_in_front_of_one_that_blocks_them(ready, edge_site, kind):
    def add(root):
        root.find("filter").append(block(COVERING[kind]))
        alias = "<alias><name>insiders</name><type>host</type><address>10.0.20.1 10.0.20.9</address><descr/></alias>"
        root.find("aliases").append(ET.fromstring(alias))

    ready.edit(add)
    ready.boot()
    ready.client().call("apply", "rules", rule_set(edge_site()))
    for service in ("smtp", "submissions", "submission", "imaps"):
        passing = line_of(ready, f'NAT mailserver {service}"')
        assert passing < min(number for number, line in enumerate(pf(ready)) if "block the rest" in line)
    assert not ready.client().call("apply", "rules", rule_set(edge_site()))["changed"]


ELSEWHERE = {
    "other senders": BLOCK.replace("<source><any/>", "<source><address>192.0.2.0/24</address>"),
    "UDP": f"{BLOCK}<protocol>udp</protocol>",
    "other ports": BLOCK.replace("<any/></destination>", "<any/><port>8000-9000</port></destination>") + "<protocol>tcp</protocol>",
    "another host": BLOCK.replace("<any/></destination>", "<address>10.0.20.203</address></destination>"),
    "another interface": BLOCK.replace("wan", "lan"),
    "IPv6": BLOCK.replace("inet</ipprotocol>", "inet6</ipprotocol>"),
    "nothing, disabled": f"{BLOCK}<disabled/>",
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_rule_that_blocks_something_else_stays_in_front(ready, edge_site, kind):
    ready.edit(lambda root: root.find("filter").append(block(ELSEWHERE[kind])))
    ready.boot()
    ready.client().call("apply", "rules", rule_set(edge_site()))
    descriptions = [item.findtext("descr") for item in ready.config().getroot().findall("filter/rule")]
    assert descriptions.index("block the rest") < descriptions.index("NAT mailserver smtp")


@pytest.mark.parametrize("interfaces", ["", "wan", "lan,wan"])
def test_a_floating_rule_that_blocks_is_refused_by_name(ready, edge_site, interfaces):
    """No rule of an interface comes before it."""
    text = (
        BLOCK.replace("<interface>wan", f"<interface>{interfaces}") + "<floating>yes</floating><quick>yes</quick><direction>in</direction>"
    )
    ready.edit(lambda root: root.find("filter").append(block(text, "no mail here")))
    ready.boot()
    for verb in ("plan", "apply"):
        assert "the floating rule `no mail here`" in refused(ready, rule_set(edge_site()), "conflict", verb=verb, kind="rules")


def test_a_floating_rule_with_an_exception_for_mail_is_accepted(ready, edge_site):
    floating = "<floating>yes</floating><quick>yes</quick><direction>in</direction>"

    def add(root):
        exception = BLOCK.replace("block", "pass").replace("<any/></destination>", "<any/><port>1-1024</port></destination>")
        root.find("filter").append(block(exception + floating + "<protocol>tcp</protocol>", "but mail"))
        root.find("filter").append(block(BLOCK + floating, "nothing else"))

    ready.edit(add)
    ready.boot()
    assert ready.client().call("apply", "rules", rule_set(edge_site()))["changed"]
    assert ready.client().call("read", "rules", rule_set(edge_site()))["problem"] is None


def test_a_block_added_in_front_is_drift_and_ours_move(ready, edge_site):
    ready.client().call("apply", "rules", rule_set(edge_site()))
    ready.edit(lambda root: root.find("filter").insert(0, block(BLOCK)))
    ready.boot()
    read = ready.client().call("read", "rules", rule_set(edge_site()))
    assert "pf does not let port 993 through to 10.0.20.1 (mailserver imaps): the rule `block the rest` blocks it first" in read["problem"]
    plan = ready.client().call("plan", "rules", rule_set(edge_site()))
    assert "~ redirect mailserver smtp: blocked by nothing (was block the rest)" in differences(plan["before"], plan["after"])
    ready.client().call("apply", "rules", rule_set(edge_site()))
    assert line_of(ready, 'NAT mailserver imaps"') < line_of(ready, "block the rest") < line_of(ready, 'NAT web"')
    assert ready.client().call("read", "rules", rule_set(edge_site()))["problem"] is None


def test_a_block_that_a_package_adds_to_pf_is_named_and_the_change_undone(ready, edge_site):
    """Not in config.xml, so that only pf itself shows it."""
    (ready.root / "pf.extra").write_text(
        'block drop in log quick on vtnet0 inet from any to <insiders> label "pfB everything" ridentifier 1\n'
    )
    (ready.root / "var/run/pf.table.insiders").write_text("10.0.20.1\n")
    config = [item.findtext("descr") for item in ready.config().getroot().findall("filter/rule")]
    with pytest.raises(AgentError, match="the rule `pfB everything` blocks it first") as error:
        ready.client().call("apply", "rules", rule_set(edge_site()))
    assert (error.value.step, error.value.rolled_back) == ("verify", True)
    assert [item.findtext("descr") for item in ready.config().getroot().findall("filter/rule")] == config


@pytest.mark.parametrize("real", ["vtnet2", "! vtnet0"])
def test_a_pass_rule_of_another_interface_does_not_count(ready, edge_site, real):
    ready.client().call("apply", "rules", rule_set(edge_site()))
    file = ready.root / "var/run/pf.rules"
    file.write_text(file.read_text().replace("on vtnet0 reply-to (vtnet0 192.168.1.1) inet", f"on {real} inet"))
    assert "no rule passes it" in ready.client().call("read", "rules", rule_set(edge_site()))["problem"]


SEPARATORS = (
    "<wan><sep0><row>fr0</row><text>top</text><if>wan</if></sep0><sep1><row>fr1</row><text>below web</text><if>wan</if></sep1>"
    "<sep2><row>fr2</row><text>end</text><if>wan</if></sep2></wan>"
)


def separators(firewall, path: str) -> list[str]:
    return [item.findtext("row") for item in firewall.config().getroot().find(path)]


def test_separators_stay_beside_their_rules(ready, edge_site):
    """Of two rules on WAN, one a block, ours come between: what is below moves down, and back up when they go."""

    def add(root):
        root.find("filter").append(block(BLOCK))
        root.find("filter").remove(root.find("filter/separator"))
        root.find("filter").append(ET.fromstring(f"<separator>{SEPARATORS}</separator>"))

    ready.edit(add)
    ready.boot()
    ready.client().call("apply", "rules", rule_set(edge_site()))
    assert separators(ready, "filter/separator/wan") == ["fr0", "fr5", "fr6"]
    ready.client().call("delete", "rules", rule_set(edge_site()))
    assert separators(ready, "filter/separator/wan") == ["fr0", "fr1", "fr2"]


def test_separators_of_redirects_move_with_those_that_go(ready, edge_site):
    ready.client().call("apply", "rules", rule_set(edge_site()))
    nat = SEPARATORS.replace("<wan>", "").replace("</wan>", "").replace("fr2", "fr5")
    ready.edit(lambda root: root.find("nat").append(ET.fromstring(f"<separator>{nat}</separator>")))
    ready.client().call("delete", "rules", rule_set(edge_site()))
    assert separators(ready, "nat/separator") == ["fr0", "fr1", "fr1"]
