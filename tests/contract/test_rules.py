"""Redirects, their pass rules, IPv6 and the alias on the stand-in; pf's own listing is the verdict."""

import contextlib
import copy
import socket
import threading
import xml.etree.ElementTree as ET

import pytest

from components.edge.client import AgentError
from components.edge.desired import haproxy_set, rule_set
from components.edge.differences import differences
from tests.contract.helpers import refused

pytestmark = pytest.mark.contract

LEGACY = {"address": "10.0.20.210"}


def nat(firewall) -> dict[str, str]:
    """Target by port, as pf has it."""
    lines = (firewall.root / "var/run/pf.nat").read_text().splitlines()
    return {line.split("port = ")[1].split()[0]: line.split("-> ")[1] for line in lines if "port = " in line}


def passes(firewall) -> set[str]:
    """`target port` of every pass rule, as pf has it."""
    lines = (firewall.root / "var/run/pf.rules").read_text().splitlines()
    found = (line.split(" to ")[1].split(" flags")[0] for line in lines if line.startswith("pass in"))
    return {text.replace(" port = ", " ") for text in found}


def rule(root: ET.Element, path: str, descr: str) -> ET.Element:
    return next(item for item in root.findall(path) if item.findtext("descr") == descr)


@pytest.fixture
def through(firewall, edge_site):
    """A firewall whose redirects point to HAProxy."""
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    return firewall


@pytest.fixture
def legacy_site(edge_site):
    return edge_site({"edge/legacy": LEGACY, "edge/target": "legacy"})


def test_redirects_and_pass_rules_point_to_the_same_place(through):
    for port in ("25", "465", "587", "993"):
        assert nat(through)[port] == through.address
        assert f"{through.address} {port}" in passes(through)
    assert nat(through)["443"] == "<webservers> round-robin", "not ours"


def test_it_is_one_write_and_a_second_time_none(firewall, edge_site):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    before = firewall.calls("write_config:after")
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    assert firewall.calls("write_config:after") - before == 1
    config, reloads = firewall.config_file.read_bytes(), firewall.calls("filter_configure:after")
    assert not firewall.client().call("apply", "rules", rule_set(edge_site()))["changed"]
    assert (firewall.config_file.read_bytes(), firewall.calls("filter_configure:after")) == (config, reloads)


def test_a_flip_moves_redirects_and_pass_rules_together(through, legacy_site, edge_site):
    through.client().call("apply", "rules", rule_set(legacy_site))
    for port in ("25", "465", "587", "993"):
        assert nat(through)[port].startswith("<mailserver>")
        assert f"<mailserver> {port}" in passes(through)
        assert f"{through.address} {port}" not in passes(through)
    through.client().call("apply", "rules", rule_set(edge_site({"edge/legacy": LEGACY})))
    assert nat(through)["25"] == through.address
    assert not any("mailserver" in text for text in passes(through))


def test_going_back_needs_nothing_of_the_new_path(through, legacy_site):
    """The mail server is down and HAProxy is dead."""
    for node in through.nodes:
        node.stop()
    through.kill_haproxy()
    through.client().call("apply", "rules", rule_set(legacy_site))
    assert nat(through)["993"].startswith("<mailserver>")


def test_no_redirect_points_to_a_haproxy_that_is_not_running(firewall, edge_site):
    refused(firewall, rule_set(edge_site()), "gate", kind="rules")


def test_no_redirect_points_to_a_mail_server_that_is_down(firewall, edge_site):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    for node in firewall.nodes:
        node.stop()
    assert "has passed a check" in refused(firewall, rule_set(edge_site()), "gate", kind="rules")


def test_a_check_that_passes_is_not_enough_the_banner_has_to_come_through(firewall, edge_site):
    """What a mail server that does not trust HAProxy looks like: checks are green, and no client gets a word."""
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    for node in firewall.nodes:
        node.mute = True
    assert "answers nothing" in refused(firewall, rule_set(edge_site()), "gate", kind="rules")


def test_an_apply_that_moves_nothing_does_not_wait_for_the_mail_server(through, edge_site):
    for node in through.nodes:
        node.stop()
    through.edit(lambda root: rule(root, "filter/rule", "NAT mailserver smtp").find("destination/address").__setattr__("text", "192.0.2.9"))
    assert through.client().call("apply", "rules", rule_set(edge_site()))["changed"]
    assert f"{through.address} 25" in passes(through)


def test_a_pass_rule_that_was_left_behind_is_drift(through, edge_site):
    """A flip by hand moves the redirect and not its pass rule: mail from the Internet is blocked and nothing reports it."""
    through.edit(lambda root: rule(root, "nat/rule", "mailserver imaps").find("target").__setattr__("text", "webservers"))
    plan = through.client().call("plan", "rules", rule_set(edge_site()))
    assert differences(plan["before"], plan["after"]) == [f"~ redirect mailserver imaps: target {through.address} (was webservers)"]

    def remove(root):
        root.find("filter").remove(rule(root, "filter/rule", "NAT mailserver imaps"))

    through.edit(remove)
    read = through.client().call("read", "rules", rule_set(edge_site()))
    assert read["state"]["redirects"]["mailserver imaps"]["pass_rule"] == "missing"
    through.client().call("apply", "rules", rule_set(edge_site()))
    assert through.client().call("read", "rules", rule_set(edge_site()))["state"]["redirects"] == rule_set(edge_site())["redirects"]


@pytest.mark.parametrize("field", ["disabled", "nordr"])
def test_a_disabled_redirect_of_ours_is_enabled(through, edge_site, field):
    through.edit(lambda root: ET.SubElement(rule(root, "nat/rule", "mailserver smtp"), field))
    through.client().call("apply", "rules", rule_set(edge_site()))
    assert rule(through.config().getroot(), "nat/rule", "mailserver smtp").find(field) is None


@pytest.mark.parametrize(
    ("like", "name", "kind"),
    [("mailserver smtp", "mailserver smtp", "redirects"), ("NAT mailserver smtp", "mailserver smtp (IPv6)", "rules")],
)
def test_two_rules_that_could_be_ours_are_refused(through, edge_site, like, name, kind):
    def twice(root):
        place = root.find("nat" if kind == "redirects" else "filter")
        for _ in range(2):
            other = copy.deepcopy(rule(place, "rule", like))
            other.find("descr").text = name
            place.append(other)

    through.edit(twice)
    assert f"two {kind} could be `{name}`" in refused(through, rule_set(edge_site()), "conflict", kind="rules")


def test_rules_that_pf_does_not_have_are_drift_though_the_configuration_is_right(through, edge_site):
    (through.root / "var/run/pf.nat").write_text("\n")
    assert "pf has no redirect" in through.client().call("read", "rules", rule_set(edge_site()))["problem"]
    through.client().call("apply", "rules", rule_set(edge_site()))
    assert nat(through)["25"] == through.address


def test_a_redirect_of_the_predecessor_is_adopted_in_place(firewall, edge_site):
    """Another description, an alias as target, `pass` instead of a rule of its own, history that has to stay."""

    def predecessor(root):
        root.find("nat").append(
            ET.fromstring(
                "<rule><source><any/></source><destination><network>wanip</network><port>25</port></destination><ipprotocol>inet</ipprotocol>"
                "<protocol>tcp</protocol><target>webservers</target><local-port>25</local-port><interface>wan</interface>"
                "<descr>Mail SMTP</descr><associated-rule-id>pass</associated-rule-id><natreflection>purenat</natreflection>"
                "<created><time>1600000000</time><username>admin</username></created></rule>"
            )
        )

    firewall.edit(predecessor)
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    root = firewall.config().getroot()
    adopted = rule(root, "nat/rule", "mailserver smtp")
    kept = [adopted.findtext(field) for field in ("associated-rule-id", "natreflection", "created/time")]
    assert kept == ["pass", "purenat", "1600000000"]
    assert len([item for item in root.findall("nat/rule") if item.findtext("destination/port") == "25"]) == 1
    assert nat(firewall)["25"] == firewall.address


def old_mail(changes: str) -> ET.Element:
    return ET.fromstring(
        "<rule><destination><network>wanip</network><port>25</port></destination><ipprotocol>inet</ipprotocol><protocol>tcp</protocol>"
        f"<target>10.0.20.9</target><local-port>25</local-port><interface>wan</interface><descr>old mail</descr>{changes}</rule>"
    )


def test_a_disabled_redirect_that_is_not_ours_is_left_alone(firewall, edge_site):
    firewall.edit(lambda root: root.find("nat").append(old_mail("<source><any/></source><disabled/>")))
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    kept = rule(firewall.config().getroot(), "nat/rule", "old mail")
    assert (kept.findtext("target"), kept.find("disabled") is not None) == ("10.0.20.9", True)
    assert nat(firewall)["25"] == firewall.address


@pytest.mark.parametrize("changes", ["<source><any/></source><nordr/>", "<source><address>192.0.2.25</address></source>"])
def test_an_exception_for_our_port_is_not_taken_over(firewall, edge_site, changes):
    firewall.edit(lambda root: root.find("nat").append(old_mail(changes)))
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    assert "old mail" in refused(firewall, rule_set(edge_site()), "conflict", kind="rules")


@pytest.mark.parametrize("ports", ["25", "1-1024", "mail_ports"])
def test_another_redirect_of_our_port_is_refused(through, edge_site, ports):
    def another(root):
        item = copy.deepcopy(rule(root, "nat/rule", "web"))
        item.find("descr").text = "old mail"
        item.find("destination/port").text = ports
        root.find("nat").insert(0, item)
        root.find("aliases").append(
            ET.fromstring("<alias><name>mail_ports</name><type>port</type><address>25 465</address><descr/></alias>")
        )

    through.edit(another)
    assert "old mail" in refused(through, rule_set(edge_site()), "conflict", kind="rules")


@pytest.mark.parametrize("subsystem", ["natconf", "filter", "aliases"])
def test_saved_and_unapplied_changes_are_not_applied(through, legacy_site, subsystem):
    (through.root / f"var/run/{subsystem}.dirty").touch()
    refused(through, rule_set(legacy_site), "unapplied", kind="rules")


def test_rules_that_pf_does_not_take_are_rolled_back(through, legacy_site):
    """The firewall reports nothing when a reload fails; its own listing shows it."""
    (through.root / "var/run/pf.broken").touch()
    before = through.client().call("read", "rules", rule_set(legacy_site))["state"]["redirects"]
    with pytest.raises(AgentError) as error:
        through.client().call("apply", "rules", rule_set(legacy_site))
    assert (error.value.step, error.value.rolled_back) == ("verify", True)
    assert through.client().call("read", "rules", rule_set(legacy_site))["state"]["redirects"] == before
    assert nat(through)["25"] == through.address


def test_the_alias_goes_when_nothing_refers_to_it(through, legacy_site, edge_site):
    through.client().call("apply", "rules", rule_set(legacy_site))
    removal = edge_site({"edge/remove_legacy_alias": True})
    through.client().call("apply", "rules", rule_set(removal))
    assert "mailserver" not in [alias.findtext("name") for alias in through.config().getroot().findall("aliases/alias")]
    assert nat(through)["25"] == through.address


# Where else an administrator may name an alias: the list that holds the entries, and the entry's field.
ELSEWHERE = {
    "outbound": ("nat/outbound", "rule", "target"),
    "1:1": ("nat", "onetoone", "destination"),
    "static route": ("staticroutes", "route", "network"),
    "OpenVPN server": ("openvpn", "openvpn-server", "local_network"),
    "OpenVPN client": ("openvpn", "openvpn-client", "remote_network"),
}


@pytest.mark.parametrize("user", ["filter", "haproxy", "a frontend of that name", "alias", *ELSEWHERE])
def test_an_alias_in_use_is_not_removed(through, legacy_site, edge_site, user):
    through.client().call("apply", "rules", rule_set(legacy_site))

    def refer(root):
        if user == "filter":
            rule(root, "filter/rule", "NAT web").find("destination/address").text = "mailserver"
        elif user in ("haproxy", "a frontend of that name"):
            root.find("installedpackages/haproxy/ha_backends/item/a_extaddr/item/extaddr_custom").text += " mailserver"
            root.find("installedpackages/haproxy/ha_backends/item/name").text = "site" if user == "haproxy" else "mailserver"
        elif user == "alias":
            root.find("aliases/alias/address").text += " mailserver"
        else:
            path, entry, field = ELSEWHERE[user]
            place = root
            for name in path.split("/"):
                place = ET.SubElement(place, name) if place.find(name) is None else place.find(name)
            ET.SubElement(ET.SubElement(place, entry), field).text = "mailserver"

    through.edit(refer)
    message = refused(through, rule_set(edge_site({"edge/remove_legacy_alias": True})), "conflict", kind="rules")
    assert "alias mailserver cannot be removed" in message


def test_deleting_takes_the_pass_rules_too_and_nothing_else(through, edge_site):
    through.client().call("delete", "rules", rule_set(edge_site()))
    root = through.config().getroot()
    assert [item.findtext("descr") for item in root.findall("nat/rule")] == ["web"]
    assert [item.findtext("descr") for item in root.findall("filter/rule")] == ["NAT web", "Default allow LAN to any rule"]
    assert not through.client().call("delete", "rules", rule_set(edge_site()))["changed"]


def test_a_delete_returns_when_pf_has_let_go(through, edge_site):
    (through.root / "slow_reload").write_text("2")
    through.client().call("delete", "rules", rule_set(edge_site()))
    assert "25" not in nat(through)
    assert f"{through.address} 25" not in passes(through)


def test_a_delete_that_pf_does_not_follow_is_undone(through, edge_site):
    config = through.config().getroot()
    (through.root / "var/run/pf.broken").touch()
    with pytest.raises(AgentError, match="pf still redirects port") as error:
        through.client().call("delete", "rules", rule_set(edge_site()))
    assert (error.value.step, error.value.rolled_back) == ("verify", True)
    for path in ("nat/rule", "filter/rule"):
        now = [item.findtext("descr") for item in through.config().getroot().findall(path)]
        assert sorted(now) == sorted(item.findtext("descr") for item in config.findall(path))


def test_a_reload_may_take_as_long_as_the_firewall_is_at_work(through, legacy_site):
    """Large tables take long to load; the firewall's own status file says so."""
    (through.root / "slow_reload").write_text("31")
    through.client().call("apply", "rules", rule_set(legacy_site))
    assert nat(through)["25"].startswith("<mailserver>")


def greets(address: str, text: bytes):
    """A service at `address` on mail's first port that says one line to each client."""
    server = socket.create_server((address, 25))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with server.accept()[0] as client:
                    client.sendall(text)

    threading.Thread(target=serve, daemon=True).start()
    return server


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (b"KMS here\r\n", "answers `KMS here`, not `220 \u2026`"),
        (None, "answers nothing"),
        (b"220 mail.example.org ESMTP\r\n", "465 (submissions) answers nothing"),
    ],
)
def test_a_legacy_address_that_is_not_a_mail_server_is_warned_of(through, edge_site, text, warning):
    """Another service may have it by now: a plan, a health check and the flip itself say so."""
    through.address_on("vtnet2", LEGACY["address"])
    server = greets(LEGACY["address"], text) if text else None
    try:
        not_used, target = (rule_set(edge_site({"edge/legacy": LEGACY, "edge/target": target})) for target in ("haproxy", "legacy"))
        calls = [("plan", not_used), ("health", not_used), ("plan", target), ("apply", target)]
        answers = [through.client().call(verb, "rules", wanted)["warnings"][-1] for verb, wanted in calls]
    finally:
        if server:
            server.close()
    assert all("the legacy address is not a mail server" in answer and warning in answer for answer in answers), answers


def test_a_site_without_a_legacy_address_is_not_warned(through, edge_site):
    assert through.client().call("plan", "rules", rule_set(edge_site()))["warnings"] == []
    assert through.client().call("health", "rules", rule_set(edge_site()))["warnings"] == []


def test_a_restart_has_the_same_rules(through, legacy_site, edge_site):
    for wanted in (rule_set(edge_site()), rule_set(legacy_site)):
        through.client().call("apply", "rules", wanted)
        before = nat(through), passes(through)
        assert through.boot() == 0
        assert (nat(through), passes(through)) == before
