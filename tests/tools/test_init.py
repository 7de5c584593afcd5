"""A new site, from nothing to a render: asked on a real terminal, or given as arguments."""

import base64
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cryptography.hazmat.primitives import serialization
from ruamel.yaml import YAML

from components.checks.registry import read_site
from components.settings.site import KEY
from tests.conftest import copy_checkout
from tests.engine.cluster import KUBECONFIG, Cluster, throwaway
from tools.commands.docs import SCHEMA
from tools.offline.stack_template import template

GIVEN = ("--context=none", "--nodes=w1=192.0.2.11 w2=192.0.2.12", "--pods=10.244.0.0/16")
GIVEN += ("--firewall=192.0.2.1", "--addresses=203.0.113.9 2001:db8::9")
PATIENCE = 100.0  # seconds without a word
NEEDED = {
    "cluster": {
        "render_to": "build/provider",
        "nodes": {"w1": {"address": "192.0.2.11", "tunnel_address": "10.244.1.0"}},
        "pod_networks": ["10.244.0.0/16"],
    },
    "mail": {"mailboxes": {"me@example.net": {}}},
}


def read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def fresh(checkout: Path) -> Iterator[Path]:
    """The checkout without stack home."""
    yield checkout
    (checkout / "Pulumi.home.yaml").unlink(missing_ok=True)
    shutil.rmtree(checkout / ".secrets", ignore_errors=True)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Three nodes on Calico, as kubectl sees them; one is kept for the control plane."""
    monkeypatch.delenv(KUBECONFIG, raising=False)
    with throwaway(tmp_path) as cluster:
        cluster.prepare()
        cluster.kubectl("delete", "node", "node1")
        for number, (name, taints) in enumerate(
            {"master": [{"key": "node-role.kubernetes.io/control-plane"}], "one": [], "two": []}.items()
        ):
            annotations = {"projectcalico.org/IPv4VXLANTunnelAddr": f"10.10.{number}.0"}
            addresses = [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": f"192.0.2.{number + 10}"}]
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": annotations}}
            cluster.apply(node | {"spec": {"podCIDR": f"10.10.{number}.0/24", "taints": taints}, "status": {"addresses": addresses}})
        monkeypatch.setenv("KUBECONFIG", cluster.kubeconfig)
        yield cluster


def tool(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "tools", *command], cwd=checkout, text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Terminal:
    """`init` on a terminal of its own, by what it shows and what is typed."""

    def __init__(self, checkout: Path, *words: str) -> None:
        self.shown = ""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in whatever runs in the background
            os.chdir(checkout)
            os.execv(sys.executable, [sys.executable, "-m", "tools", "init", "--stack", "home", *words])

    def until(self, question: str) -> str:
        """What is shown up to a question."""
        while question not in self.shown:
            assert self._read(), f"{question!r} was not asked: {self.shown}"
        before, _, self.shown = self.shown.partition(question)
        return before

    def answer(self, question: str, text: str) -> str:
        before = self.until(question)
        os.write(self.end, f"{text}\n".encode())
        return before

    def finish(self, key: bytes = b"") -> tuple[int, str]:
        """The exit code, and the rest of what it shows; `key` is pressed until something comes of it.

        Python misses a signal that comes between its prompt and its wait for an answer.
        """
        while key and "Aborted!" not in self.shown:
            os.write(self.end, key)
            while "Aborted!" not in self.shown and select.select([self.end], [], [], 5)[0]:
                self._read()
        while self._read():
            pass
        os.close(self.end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.shown

    def _read(self) -> bool:
        """Adds what is shown next; False where nothing more will be."""
        assert select.select([self.end], [], [], PATIENCE)[0], f"nothing more is shown after {self.shown}"
        try:
            piece = os.read(self.end, 4096)
        except OSError:  # Linux's word for a terminal that no one has open any more
            piece = b""
        self.shown += piece.decode().replace("\r\n", "\n")
        return bool(piece)


def test_from_nothing_to_a_rendered_site_on_a_terminal(fresh, cluster):
    terminal = Terminal(fresh)
    terminal.answer("Mail domain: ", "Example")
    assert "Error: write a full domain name" in terminal.answer("Mail domain: ", "example.net")
    terminal.answer("Cluster, as a context of your kubeconfig (standin, none): ", "elsewhere")
    assert "Error: choose one of standin, or none" in terminal.answer("kubeconfig (standin, none): ", "standin")
    terminal.answer("Nodes that take mail from the firewall [one two]: ", "one three")
    assert "Error: write names of nodes that have an address: master, one, two" in terminal.answer("firewall [one two]: ", "")
    terminal.answer("Address of the firewall on the nodes' network: ", "10.0.0")
    assert "Error: " in terminal.answer("Address of the firewall on the nodes' network: ", "192.0.2.1")
    terminal.answer("Public addresses that mail arrives on: ", "203.0.113.9")
    terminal.answer("First mailbox [me@example.net]: ", "")
    terminal.answer("Storage class (proxmox-lvm-encrypted): ", "proxmox-lvm-encrypted")
    code, said = terminal.finish()
    assert (code, "Traceback" in said) == (0, False), said
    file = (fresh / "Pulumi.home.yaml").read_text("utf-8")
    site = read(file)["config"][KEY]
    nodes = {name: {"address": f"192.0.2.{11 + n}", "tunnel_address": f"10.10.{1 + n}.0"} for n, name in enumerate(("one", "two"))}
    assert site["cluster"]["nodes"] == nodes
    assert site["cluster"]["uid"] == cluster.uid
    assert site["cluster"]["pod_networks"] == ["10.10.0.0/24", "10.10.1.0/24", "10.10.2.0/24"]
    assert "external_secrets" not in site["cluster"] and site["cluster"]["reloader"] is False
    assert site["mail"]["storage"] == {"storage_class": "proxmox-lvm-encrypted"}
    assert [line for line in said.splitlines() if line.startswith("       make ")] == [
        f"       make {word} STACK=home" for word in ("stack-init", "preview", "up")
    ]
    rendered = tool(fresh, "render", "--stack", "home", "--out", "out")
    assert rendered.returncode == 0, rendered.stderr
    assert "mail.example.net" in (fresh / "out/dns/example.net.zone").read_text("utf-8")
    for line in re.findall(r"^ {7}\S.*$", said, re.MULTILINE):
        assert f"# {line}" in file, line


def test_ctrl_c_leaves_nothing_behind(fresh):
    terminal = Terminal(fresh, *GIVEN)
    terminal.answer("Mail domain: ", "example.net")
    terminal.until("First mailbox [me@example.net]: ")
    code, said = terminal.finish(b"\x03")
    assert (code, "Traceback" in said, "Aborted!" in said) == (1, False, True)
    assert not (fresh / "Pulumi.home.yaml").exists() and not (fresh / ".secrets").exists()


def test_what_is_there_is_not_overwritten_and_arguments_need_no_terminal(fresh):
    new = ("init", "--stack", "home", "--domain=mail.example.net", *GIVEN)
    done = tool(fresh, *new)
    assert done.returncode == 0, done.stderr
    before = {file: file.read_bytes() for file in (fresh / "Pulumi.home.yaml", *(fresh / ".secrets/home").iterdir())}
    again = tool(fresh, *new)
    assert (again.returncode, again.stderr.startswith("error: Pulumi.home.yaml: exists already")) == (1, True)
    (fresh / "Pulumi.home.yaml").rename(fresh / "moved.yaml")
    keys = tool(fresh, *new)
    assert (keys.returncode, keys.stderr.startswith("error: .secrets/home: exists already")) == (1, True)
    (fresh / "moved.yaml").rename(fresh / "Pulumi.home.yaml")
    assert before == {file: file.read_bytes() for file in before}
    assert {oct(file.stat().st_mode & 0o777) for file in before if file.parent.name == "home"} == {"0o600"}


def test_the_published_key_is_the_other_half_of_the_one_in_the_folder_that_git_ignores(fresh):
    assert tool(fresh, "init", "--stack", "home", "--domain=example.net", *GIVEN).returncode == 0
    (key,) = read((fresh / "Pulumi.home.yaml").read_text("utf-8"))["config"][KEY]["domains"]["example.net"]["dkim"]
    file = fresh / ".secrets/home/example.net.mail.pem"
    private = serialization.load_pem_private_key(file.read_bytes(), None)
    public = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert base64.b64decode(key["public_key"]) == public
    subprocess.run(["git", "init", "-q", fresh], check=True)
    ignored = subprocess.run(["git", "check-ignore", "-q", ".secrets/home/accounts.json"], cwd=fresh, check=False)
    assert ignored.returncode == 0
    lint = subprocess.run(
        [Path(sys.executable).parent / "yamllint", "--strict", "Pulumi.home.yaml"], cwd=fresh, text=True, capture_output=True, check=False
    )
    assert lint.returncode == 0, lint.stdout


def test_without_tunnel_addresses_only_the_firewall_is_admitted(fresh):
    assert tool(fresh, "init", "--stack", "home", "--domain=example.net", *GIVEN).returncode == 0
    site = read((fresh / "Pulumi.home.yaml").read_text("utf-8"))["config"][KEY]
    assert site["cluster"]["traffic_policy"] == "Local"


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--stack=a/b", "--domain=example.net"], "STACK: "),
        (["--stack=home", "--domain=Example"], "DOMAIN: write a full"),
        (["--stack=home"], "DOMAIN: is not given, and there is no terminal"),
        (["--stack=home", "--domain=example.net", "--context=none", "--nodes=w1"], "NODES: write each node as name=address"),
        (["--stack=home", "--domain=example.net", *GIVEN[:3], "--firewall=x"], "FIREWALL: "),
    ],
)
def test_a_wrong_or_missing_argument_is_named_and_nothing_is_written(fresh, words: list[str], refused: str):
    done = tool(fresh, "init", *words)
    assert (done.returncode, done.stderr.startswith(f"error: {refused}")) == (1, True), done.stderr
    assert not (fresh / "Pulumi.home.yaml").exists() and not (fresh / ".secrets").exists()


def test_a_cluster_that_does_not_answer_is_named(fresh, cluster, monkeypatch):
    config = json.loads(Path(cluster.kubeconfig).read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"  # the discard port: nothing listens
    Path(cluster.kubeconfig).write_text(json.dumps(config))
    done = tool(fresh, "init", "--stack=home", "--domain=example.net", "--context=standin")
    assert done.stderr.startswith("error: CONTEXT: ") and "refused" in done.stderr


def test_each_command_that_is_to_be_typed_is_one_that_its_program_understands(fresh):
    done = tool(fresh, "init", "--stack", "home", "--domain=example.net", *GIVEN)
    lines = re.findall(r"^ {7}(kubectl .*)$", done.stdout, re.MULTILINE)
    assert len(lines) == 4
    real = shutil.which("kubectl")
    if real is None:
        pytest.skip("kubectl is not installed")
    for name in ("fullchain.pem", "privkey.pem"):
        shutil.copy(fresh / ".secrets/home/example.net.mail.pem", fresh / name)
    for line in lines[:-1]:
        words = shlex.split(line)
        made = subprocess.run([*words, "--dry-run=client", "--output=name"], cwd=fresh, text=True, capture_output=True, check=False)
        assert made.returncode == 0, made.stderr


def test_only_what_must_be_set_is_set() -> None:
    text = template("example.net", NEEDED)
    site = read(text)["config"][KEY]
    assert site.keys() == {"domains", "cluster", "edge", "tls", "mail"}
    assert read_site(json.dumps(site)).model_dump(exclude_unset=True)["mail"] == {"mailboxes": {"me@example.net": {}}}
    assert "example.org" not in text


def test_what_is_commented_out_is_valid_too() -> None:
    """Level by level, as someone would do who removes every `# `: all settings at once keep the schema, whatever they mean together."""
    text, levels = template("example.net", NEEDED), 0
    schema = json.loads(SCHEMA.read_text("utf-8"))
    while (less := re.sub(r"(?m)^( +)# ", r"\1", text)) != text:
        text, levels = less, levels + 1
    assert levels > 1
    jsonschema.validate(read(text), schema)
