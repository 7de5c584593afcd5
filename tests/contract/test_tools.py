"""The commands of the runbook, as an operator runs them."""

import json
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from components.edge.desired import haproxy_set, rule_set
from tests.conftest import settings
from tests.contract.test_rules import nat
from tools.program import ROOT

pytestmark = pytest.mark.contract


@pytest.fixture
def run(firewall, tmp_path):
    """`run("plan", {...})`: tools.edge for a stack in a folder of its own, with the key in a file and no engine anywhere."""

    def call(command: str, changes: dict | None = None) -> subprocess.CompletedProcess[str]:
        stack = settings("prod")
        stack["cluster"]["nodes"] = {f"node{n}": {"address": node.address} for n, node in enumerate(firewall.nodes, 1)}
        stack["firewall"] = {"address": firewall.address, "ssh": {"port": 2222, "user": "root", "host_key": firewall.host_key}}
        stack["firewall"] |= (changes or {}).get("firewall", {})
        stack |= {key: value for key, value in (changes or {}).items() if key != "firewall"}
        (tmp_path / "Pulumi.yaml").write_text("name: mailserver\nruntime: python\n")
        with (tmp_path / "Pulumi.prod.yaml").open("w") as file:
            YAML().dump({"config": {"mailserver:site": json.loads(json.dumps(stack))}}, file)
        arguments = [command, "--stack", "prod", "--root", str(tmp_path), "--key", str(firewall.root / "ssh/client")]
        return subprocess.run(
            [sys.executable, "-m", "tools.edge", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )

    return call


def test_plan_reads_like_the_firewall(run, firewall, edge_site):
    result = run("plan")
    assert result.returncode == 0, result.stderr
    assert f"+ frontend mailserver_proxy_25: bind {firewall.address}:25" in result.stdout
    assert "+ redirect mailserver smtp: interface wan" in result.stdout
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    assert run("plan").stdout.split("\n") == ["nothing to change", "nothing to change", ""]
    firewall.kill_haproxy()
    assert "not in force" in run("plan").stdout


def test_flip_back_with_the_mail_server_down_and_without_pulumi(run, firewall, edge_site):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    for node in firewall.nodes:
        node.stop()
    assert "legacy: is not set" in run("flip-back").stderr
    result = run("flip-back", {"legacy": {"address": "10.0.20.202"}})
    assert result.returncode == 0, result.stderr
    assert f"~ redirect mailserver imaps: target mailserver (was {firewall.address})" in result.stdout
    assert nat(firewall)["25"].startswith("<mailserver>")


def test_health_names_every_server(run, firewall, edge_site):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    lines = run("health").stdout.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("mailserver_nodes_smtp_ipvANY node1: ")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"firewall": {"ssh": None}}, "firewall.ssh: is not set"),
        ({"firewall": {"target": "legacy"}}, "firewall.target: legacy needs `legacy.address`"),
    ],
)
def test_mistakes_are_one_line(run, changes, sentence):
    result = run("plan", changes)
    assert result.returncode == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
