"""The real engine and the firewall: the edge resources of stack dev on the stand-in."""

import json
import os
import subprocess

import pytest
from ruamel.yaml import YAML

from components.settings.site import KEY
from tests.conftest import change, settings
from tests.contract.helpers import frontend_item, pool_item
from tests.contract.standin import StandIn, missing
from tests.contract.test_rules import nat

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

MAIL = {25, 465, 587, 993}
EDGE = "urn:pulumi:dev::mailserver::mailserver:edge:Edge$pulumi-python:dynamic/mailserver"
HAPROXY, RULES = f"{EDGE}:HaproxySet::edge-haproxy", f"{EDGE}:RuleSet::edge-rules"


@pytest.fixture(scope="module")
def firewall(tmp_path_factory):
    firewall = StandIn(tmp_path_factory.mktemp("firewall") / "root")
    yield firewall
    firewall.stop()


class Stack:
    """Stack dev with its firewall."""

    def __init__(self, pulumi, checkout, firewall):
        self.pulumi, self.checkout, self.firewall = pulumi, checkout, firewall
        self.set()
        pulumi("config", "set", "--secret", "edgeSshKey", text=firewall.private_key)

    def set(self, changes=None):
        """Settings by path, on the stand-in's addresses; the rest of the stack file stays."""
        site, firewall = settings("dev"), self.firewall
        base = {
            "cluster/nodes": {f"node{n}": {"address": node.address} for n, node in enumerate(firewall.nodes, 1)},
            "unprotected": ["HaproxySet/edge-haproxy", "RuleSet/edge-rules"],  # a destroy is among the tests
            "edge": {
                "address": firewall.address,
                "ssh": {"user": "root", "host_key": firewall.host_key},
                "check_after_flip": False,  # one test turns it on
            },
            "doctor": {"resolvers": [firewall.address]},
        }
        for path, value in (base | (changes or {})).items():
            change(site, path, value)
        file = self.checkout / "Pulumi.dev.yaml"
        document = YAML().load(file)
        document["config"][KEY] = site
        with file.open("w") as stream:
            YAML().dump(document, stream)

    def make(self, target):
        """Without KEY, an SSH agent or a key file."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "SSH_"))}
        command = ["make", "-o", ".venv/.locked", target, "STACK=dev"]
        result = subprocess.run(command, cwd=self.checkout, env=environment, capture_output=True, text=True, timeout=120, check=False)
        self.pulumi.said += result.stdout + result.stderr
        assert result.returncode == 0, result.stderr
        return result.stdout

    def edge_steps(self, *arguments):
        """What a preview would change on the firewall."""
        steps = json.loads(self.pulumi("preview", "--json", *arguments))["steps"]
        return {step["urn"]: step["op"] for step in steps if step["urn"] in {HAPROXY, RULES} and step["op"] not in {"same", "refresh"}}


@pytest.fixture(scope="module")
def stack(pulumi, checkout, firewall):
    """Deployed once."""
    stack = Stack(pulumi, checkout, firewall)
    pulumi("up", "--yes", "--skip-preview")
    return stack


def test_an_up_applies_haproxy_and_then_points_mail_to_it(stack, pulumi, firewall):
    calls = (firewall.root / "log/calls").read_text().splitlines()
    assert calls.index("reload:after") < calls.index("filter_configure:before")
    assert {(firewall.address, port) for port in MAIL} <= firewall.listeners()
    assert {port: nat(firewall)[port] for port in map(str, MAIL)} == dict.fromkeys(map(str, MAIL), firewall.address)


def test_a_second_preview_has_no_changes_and_opens_no_connection(stack, pulumi, firewall):
    before = firewall.logins()
    pulumi("preview", "--expect-no-changes")
    assert firewall.logins() == before
    pulumi("up", "--yes", "--expect-no-changes")
    assert firewall.logins() == before


def test_drift_made_by_hand_is_shown_by_a_refresh_and_repaired_by_the_next_up(stack, pulumi, firewall):
    def meddle(root):
        pool_item(root, "mailserver_nodes_imaps").find("server_timeout").text = "30000"

    firewall.edit(meddle)
    assert stack.edge_steps() == {}, "changes made by hand show only with a refresh"
    before = firewall.logins()
    targets = ("--target", HAPROXY, "--target", RULES)
    assert stack.edge_steps("--refresh", *targets) == {HAPROXY: "update"}
    assert firewall.logins() == before + 2, "one for each resource"
    assert "30000" in pulumi("preview", "--refresh", "--diff", *targets)
    pulumi("up", "--yes", "--skip-preview", "--refresh", *targets)
    assert pool_item(firewall.config().getroot(), "mailserver_nodes_imaps").findtext("server_timeout") != "30000"
    assert stack.edge_steps("--refresh", *targets) == {}


def test_a_preview_refuses_to_close_a_node_port_that_haproxy_uses(stack, pulumi, firewall):
    before = firewall.logins()
    try:
        stack.set({"cluster/node_ports": {"smtp": {"proxy": 31125, "health": 31145}}})
        assert "add `previous: [30125, 30145]` for one `up`" in pulumi.refused("preview")
        stack.set({"cluster/node_ports": {"smtp": {"proxy": 31125, "health": 31145, "previous": [30125, 30145]}}})
        assert stack.edge_steps() == {HAPROXY: "update"}
    finally:
        stack.set()
    assert firewall.logins() == before


def test_make_edge_plan_reads_the_encrypted_key_from_the_stack(stack):
    assert stack.make("edge-plan") == "nothing to change\nnothing to change\n"


def test_back_without_pulumi_and_forward_again_with_it(stack, pulumi, firewall):
    legacy = {"edge/legacy": {"address": "10.0.20.210"}}
    try:
        stack.set(legacy)
        pulumi("up", "--yes", "--skip-preview")
        stack.make("edge-flip-back")
        assert nat(firewall)["25"].startswith("<mailserver>")
        assert stack.edge_steps() == {}, "Pulumi does not know yet"
        stack.set(legacy | {"edge/target": "legacy"})
        pulumi("up", "--yes", "--skip-preview")
        assert nat(firewall)["25"].startswith("<mailserver>")
        stack.set(legacy)
        pulumi("up", "--yes", "--skip-preview")
        assert nat(firewall)["25"] == firewall.address
    finally:
        stack.set()


def test_the_key_is_nowhere_in_the_clear(stack, pulumi, checkout, state, firewall):
    (firewall.root / "ssh/authorized_keys").rename(firewall.root / "ssh/away")
    try:
        assert "refuses the key" in pulumi.refused("refresh", "--yes", "--target", HAPROXY)
    finally:
        (firewall.root / "ssh/away").rename(firewall.root / "ssh/authorized_keys")
    texts = {
        "exported state": pulumi("stack", "export"),
        "what was printed": pulumi.said,
        "the stack file": (checkout / "Pulumi.dev.yaml").read_text(),
    }
    texts |= {str(file): file.read_text() for file in state.rglob("*") if file.is_file()}
    assert any("HaproxySet" in text for name, text in texts.items() if name.startswith(str(state)))
    for secret in firewall.private_key.splitlines()[1:-1]:
        assert [name for name, text in texts.items() if secret in text] == []


def test_a_destroy_removes_the_redirects_first_and_stops_at_a_pool_in_use(stack, pulumi, firewall):
    def use(pool):
        return lambda root: setattr(frontend_item(root, "internal_https_443").find("backend_serverpool"), "text", pool)

    destroy = ("destroy", "--yes", "--skip-preview", "--target", HAPROXY)
    firewall.edit(use("mailserver_nodes_smtp"))
    assert "pool mailserver_nodes_smtp cannot be removed: frontend internal_https_443 uses it" in pulumi.refused(
        *destroy, "--target", RULES
    )
    assert "25" not in nat(firewall), "the redirects went first"
    assert {(firewall.address, port) for port in MAIL} <= firewall.listeners()
    firewall.edit(use("traefik"))
    pulumi(*destroy)
    assert firewall.listeners() == {(firewall.address, 443)}
    pulumi("up", "--yes", "--skip-preview")
    assert nat(firewall)["25"] == firewall.address


def test_an_up_looks_as_a_client_once_the_redirects_are_written(stack, pulumi, firewall):
    """The stand-in's nodes greet, and then only send back what they get: a client finds the services broken."""
    checked, legacy = {"edge/check_after_flip": True}, {"edge/legacy": {"address": "10.0.20.210"}}
    try:
        stack.set(checked)
        assert "could not check" not in pulumi("preview"), "a preview runs nothing"
        said = pulumi("up", "--yes", "--skip-preview")
        assert "could not check" in said, "no name server answers, which says nothing about mail"
        assert "could not check" not in pulumi("up", "--yes", "--expect-no-changes"), "it runs again only for other redirects"
        names = firewall.name_server()
        try:
            names.host(settings("dev")["domains"].popitem()[1].get("host") or "mail.example.org", firewall.address)
            stack.set(checked | legacy | {"edge/test_frontend": True, "edge/wan_address": firewall.wan})
            said = pulumi.refused("up", "--yes", "--skip-preview")
            assert "`make edge-flip-back STACK=dev`" in said
            assert nat(firewall)["25"] == firewall.address, "the redirects are written all the same"
            assert "edge-check" in pulumi.refused("up", "--yes", "--skip-preview"), "the next one looks again"
        finally:
            names.close()
    finally:
        stack.set()
        pulumi("up", "--yes", "--skip-preview")


def test_node_ports_that_cannot_be_opened_any_more_are_forgotten_by_hand(stack, pulumi, firewall):
    """The last test of this stack: it stays on the new pair."""
    for node in firewall.nodes:
        node.listen(31125, "smtp")
        node.listen(31145, None)
    stack.set({"cluster/node_ports": {"smtp": {"proxy": 31125, "health": 31145}}})
    pulumi("state", "delete", "--yes", "--force", "--target-dependents", HAPROXY)
    pulumi("up", "--yes", "--skip-preview")
    assert pool_item(firewall.config().getroot(), "mailserver_nodes_smtp").findtext("ha_servers/item/port") == "31125"
    assert firewall.banner(25).startswith("220 ")
