"""`make render`: what it writes, and what it leaves alone when anything is wrong."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pytest
import yaml
from ruamel.yaml import YAML

from tests.conftest import change, settings
from tools.__main__ import main
from tools.offline.stackfile import ROOT


@pytest.fixture
def checkout(tmp_path):
    """A project folder whose stack `prod` can be changed; the program itself is this checkout's."""
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)

    def with_settings(changes: dict | None = None):
        base = settings("prod")
        for path, value in (changes or {}).items():
            change(base, path, value)
        YAML().dump({"config": {"mailserver:site": base}}, tmp_path / "Pulumi.prod.yaml")
        return tmp_path

    return with_settings


def run_render(root, out, stack="prod") -> int:
    with pytest.raises(SystemExit) as ended:
        main(["render", "--root", str(root), "--out", str(out), "--stack", stack])
    return ended.value.code


def files_of(folder) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text("utf-8") for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_owners_whole_mail_server_is_listed_and_written(monkeypatch, capsys, tmp_path):
    def no_network(*_args):
        raise AssertionError("a render must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    assert run_render(ROOT, tmp_path / "out") == 0
    screen = capsys.readouterr().out
    for line in ("Namespace mailserver (protect", "ExternalSecret mailserver-probe-secrets", "Service mailserver-proxy", "warning: "):
        assert line in screen
    written = files_of(tmp_path / "out")
    assert {
        "kubernetes/deployment-mailserver.yaml",
        "mail/postfix-main.cf",
        "mail/scripts/user-patches.sh",
        "resources.json",
    } <= written.keys()
    scripts = {name.removeprefix("mail/scripts/") for name in written if name.startswith("mail/scripts/")}
    assert scripts == {
        "alive.py",
        "app_passwords.lua",
        "assemble.py",
        "common.py",
        "own_from.lua",
        "passwords.py",
        "pulse.py",
        "user-patches.sh",
    }
    listed = json.loads(written["resources.json"])
    objects = [resource for resource in listed if "kind" in resource["inputs"]]
    assert len(objects) == len([name for name in written if name.startswith("kubernetes/")])
    for resource in objects:
        name = f"kubernetes/{resource['inputs']['kind'].lower()}-{resource['inputs']['metadata']['name']}.yaml"
        assert YAML(typ="safe").load(written[name]) == resource["inputs"]


def test_a_render_without_any_credential_is_the_same_to_the_byte(tmp_path, monkeypatch):
    """Once in a bare environment with another order of hashing, once here, both at the same time of day."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1780000000")
    command = [sys.executable, "-m", "tools", "render", "--stack", "prod", "--out", str(tmp_path / "bare")]
    bare = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONHASHSEED": "1", "SOURCE_DATE_EPOCH": os.environ["SOURCE_DATE_EPOCH"]}
    subprocess.run(command, cwd=ROOT, env=bare, check=True, capture_output=True)
    assert run_render(ROOT, tmp_path / "here") == 0
    assert files_of(tmp_path / "bare") == files_of(tmp_path / "here")


def test_a_second_render_leaves_nothing_of_the_first(checkout, tmp_path):
    out = tmp_path / "out"
    assert run_render(checkout(), out) == 0
    assert (out / "kubernetes/externalsecret-mailserver-relay.yaml").exists()
    assert run_render(checkout({"mail/relay": None}), out) == 0
    assert not (out / "kubernetes/externalsecret-mailserver-relay.yaml").exists()


def test_a_word_that_kubectl_would_read_as_a_boolean_is_quoted(checkout, tmp_path):
    words = {"VIRUSMAILS_DELETE": "on", "SA_SHORTCIRCUIT_BAYES": "no"}
    assert run_render(checkout({"mail/extra/environment": words}), tmp_path / "out") == 0
    text = (tmp_path / "out/kubernetes/deployment-mailserver.yaml").read_text("utf-8")
    written = yaml.safe_load(text)  # YAML 1.1, as kubectl reads it
    (container,) = written["spec"]["template"]["spec"]["containers"]
    values = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert {name: values[name] for name in words} == words


def test_a_folder_that_no_render_made_is_left_alone(capsys, checkout, tmp_path):
    precious = tmp_path / "out" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("x")
    assert run_render(checkout(), tmp_path / "out") == 1
    assert precious.exists()
    assert "name another folder" in capsys.readouterr().err


BAD = {
    "unknown key": {"mail/imag": "x"},
    "wrong type": {"mail/relay/port": "587"},
    "missing key": {"tls": ...},
    "invalid domain": {"domains/not a domain": {}},
    "duplicate NodePort": {"cluster/node_ports": {"imaps": {"proxy": 30125, "health": 30148}}},
    "alias that breaks delivery": {"mail/aliases/x@viktorbarzin.me": ["nobody@viktorbarzin.me"]},
    "network that does not parse": {"cluster/pod_networks": ["10.10/16x"]},
    "image without a tag": {"mail/image": "docker.io/mailserver/docker-mailserver"},
    "adopting what is not there": {"adopt": ["Deployment/mailsrever"]},
    "adopting what may hold passwords": {"adopt": ["ConfigMap/mailserver-config"]},
    "adopting what an import does not see": {"adopt": ["ExternalSecret/mailserver-relay"]},
    "dropping a protection that is not there": {"unprotected": ["PersistentVolumeClaim/mailserver-dat"]},
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_get_one_message_and_nothing_is_written(capsys, checkout, tmp_path, case):
    assert run_render(checkout(BAD[case]), tmp_path / "out") == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("error: ") and line.endswith("]")
    assert "Traceback" not in said.err + said.out
    assert not (tmp_path / "out").exists()


def test_a_stack_without_settings_gets_one_message(capsys, tmp_path):
    shutil.copy(ROOT / "Pulumi.yaml", tmp_path)
    (tmp_path / "Pulumi.prod.yaml").write_text("config: {}\n")
    assert run_render(tmp_path, tmp_path / "out") == 1
    assert capsys.readouterr().err.splitlines() == ["error: mailserver:site: is required; Pulumi.dev.yaml shows a small example"]


@pytest.mark.parametrize("arguments", [["--stack", "nope"], ["--root", "/nonexistent"]])
def test_a_missing_file_gets_one_message(arguments, tmp_path):
    command = [sys.executable, "-m", "tools", "render", "--out", str(tmp_path / "out"), *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
