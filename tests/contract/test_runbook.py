"""The command lines of docs/runbooks/edge.md, taken from its text and typed in a checkout whose firewall is the stand-in."""

import os
import re
import subprocess

import pytest
from ruamel.yaml import YAML

from components.edge.desired import haproxy_set, rule_set
from tests.conftest import change, copy_checkout, settings
from tests.contract.test_rules import nat, passes
from tools.offline.stackfile import ROOT

pytestmark = pytest.mark.contract

LINES = re.findall(r"^ {4,}((?:make|nc|ssh|ssh-keygen|ssh-keyscan) .+)$", (ROOT / "docs/runbooks/edge.md").read_text("utf-8"), re.MULTILINE)
LEGACY = {"edge/legacy": {"address": "10.0.20.210"}}


def line(part: str) -> str:
    """The one command line of the runbook with this in it."""
    (found,) = (line for line in LINES if part in line)
    return found


class Operator:
    """An administrator with the runbook, a checkout and a home; the firewall's first set-up is done as it says there."""

    def __init__(self, firewall, folder):
        self.firewall, self.checkout, self.home = firewall, copy_checkout(folder / "checkout"), folder / "home"
        (self.home / ".ssh").mkdir(parents=True)
        self.type(line("ssh-keygen"))
        with (firewall.root / "ssh/authorized_keys").open("a") as keys:
            keys.write((self.home / ".ssh/mailserver-edge.pub").read_text())
        self.known_host = self.type(line("ssh-keyscan")).stdout
        _, *host_key = self.known_host.split()
        (self.home / "known_hosts").write_text(self.known_host)
        self.base = {
            "cluster/nodes": {f"node{n}": {"address": node.address} for n, node in enumerate(firewall.nodes, 1)},
            "edge": {"address": firewall.address, "ssh": {"user": "root", "host_key": " ".join(host_key)}},
        }

    def set(self, changes=None):
        """Settings by path, on top of a production site on the stand-in's addresses."""
        site = settings("prod")
        for path, value in (self.base | (changes or {})).items():
            change(site, path, value)
        with (self.checkout / "Pulumi.prod.yaml").open("w") as file:
            YAML().dump({"config": {"mailserver:site": site}}, file)

    def type(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a line with the stand-in's user; make does not look whether packages are to be installed."""
        for there, here in {
            "make ": "make -o .venv/.locked ",
            "ssh -i ": f"ssh -o BatchMode=yes -o UserKnownHostsFile={self.home}/known_hosts -i ",
            "admin@": "root@",
            "nc 10.": "nc -N 10.",  # QUIT is not typed here
        }.items():
            text = text.replace(there, here)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | {"HOME": str(self.home)}
        command = ["sh", "-c", text]
        options = {"cwd": self.checkout, "env": environment, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        return subprocess.run(command, check=False, timeout=120, **options)


@pytest.fixture
def operator(firewall, tmp_path):
    return Operator(firewall, tmp_path)


def test_plan_reads_like_the_firewall(operator, firewall, edge_site):
    operator.set()
    result = operator.type(line("make edge-plan"))
    assert result.returncode == 0, result.stderr
    assert f"+ frontend mailserver_proxy_25: bind {firewall.address}:25" in result.stdout
    assert "+ redirect mailserver smtp: interface wan" in result.stdout
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    assert operator.type(line("make edge-plan")).stdout.split("\n") == ["nothing to change", "nothing to change", ""]
    firewall.kill_haproxy()
    assert "not active" in operator.type(line("make edge-plan")).stdout


def test_flip_back_with_the_mail_server_down_and_without_pulumi(operator, firewall, edge_site):
    firewall.client().call("apply", "haproxy", haproxy_set(edge_site()))
    firewall.client().call("apply", "rules", rule_set(edge_site()))
    for node in firewall.nodes:
        node.stop()
    operator.set()
    refused = operator.type(line("make edge-flip-back"))
    assert "legacy: is not set" in refused.stderr and refused.returncode
    assert nat(firewall)["25"] == firewall.address
    operator.set(LEGACY)
    result = operator.type(line("make edge-flip-back"))
    assert result.returncode == 0, result.stderr
    assert f"~ redirect mailserver imaps: target mailserver (was {firewall.address})" in result.stdout
    assert "set edge.target to legacy" in result.stdout
    for port in ("25", "465", "587", "993"):
        assert nat(firewall)[port].startswith("<mailserver>")
        assert f"<mailserver> {port}" in passes(firewall)


def test_every_other_line_shows_what_it_is_there_for(operator, firewall, edge_site):
    site = edge_site({"edge/test_frontend": True})
    firewall.client().call("apply", "haproxy", haproxy_set(site))
    firewall.client().call("apply", "rules", rule_set(site))
    operator.set()
    servers = [(f"{pool}_ipvANY", server) for pool, entry in haproxy_set(site)["pools"].items() for server in entry["servers"]]
    shows = {
        "edge-health": [f"{pool} {server}: UP" for pool, server in servers],
        "2525": ["220 mail.example.org"],
        "show servers state": [f" {pool} 1 {servers[0][1]}" for pool, _ in servers],
        "haproxy.cfg": [f"bind\t\t\t{firewall.address}:{port}" for port in (25, 465, 587, 993)],
        "sockstat": [f"{firewall.address}:{port}" for port in (25, 465, 587, 993)],
        "pfctl": [f"port = {port} -> {firewall.address}" for port in (25, 465, 587, 993)]
        + [f"to {firewall.address} port = {port} flags" for port in (25, 465, 587, 993)],
    }
    elsewhere = ("ssh-keygen", "ssh-keyscan", "edge-plan", "edge-flip-back", "make up")
    assert {line(part) for part in (*elsewhere, *shows)} == set(LINES)
    for part, expected in shows.items():
        result = operator.type(line(part))
        assert [text for text in expected if text not in result.stdout] == [], result


def test_an_up_can_be_told_to_look_at_the_firewall(operator):
    """What the engine then does with it is tests/engine/test_edge.py."""
    operator.set({"cluster/context": None, "cluster/render_to": "manifests"})
    cli = operator.home / "bin/pulumi"
    cli.parent.mkdir()
    cli.write_text('#!/bin/sh\necho "$0 $*"\n')
    cli.chmod(0o755)
    result = operator.type(f"PATH={cli.parent}:$PATH YES=1 {line('make up')}")
    assert result.returncode == 0, result
    told = result.stdout
    assert f"{cli} preview --diff --refresh " in told
    assert f"{cli} up --yes --skip-preview --refresh " in told


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edge/ssh": None}, "edge.ssh: is not set"),
        ({"edge/target": "legacy"}, "edge.target: is legacy, and edge.legacy is not set"),
    ],
)
def test_mistakes_are_one_line(operator, changes, sentence):
    operator.set(changes)
    result = operator.type(line("make edge-plan"))
    assert result.returncode
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
