"""A new stack: the file that is written is valid as it is, and stays valid when what is commented out is set."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from components.checks.registry import read_site
from components.settings.site import KEY
from tests.conftest import copy_checkout
from tools.commands.docs import SCHEMA
from tools.offline.stack_template import template


def read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_a_new_stack_renders(tmp_path: Path) -> None:
    checkout = copy_checkout(tmp_path)

    def make(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "tools", *command], cwd=checkout, text=True, capture_output=True, check=False)

    new = ("new-stack", "--stack", "home", "--domain", "mail.example.net")
    assert make(*new).returncode == 0
    again = make(*new)
    assert (again.returncode, "Pulumi.home.yaml: exists already" in again.stderr) == (1, True)
    rendered = make("render", "--stack", "home", "--out", "out")
    assert rendered.returncode == 0, rendered.stderr
    deployment = read((checkout / "out/kubernetes/deployment-mailserver.yaml").read_text("utf-8"))
    assert {"name": "OVERRIDE_HOSTNAME", "value": "mail.mail.example.net"} in deployment["spec"]["template"]["spec"]["containers"][0]["env"]


@pytest.mark.parametrize(("stack", "domain", "refused"), [("a/b", "example.net", "STACK: "), ("home", "Example", "DOMAIN: write a full")])
def test_a_new_stack_with_a_wrong_name_is_refused(stack: str, domain: str, refused: str) -> None:
    command = [sys.executable, "-m", "tools", "new-stack", "--stack", stack, "--domain", domain]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    assert (result.returncode, result.stderr.startswith(f"error: {refused}")) == (1, True), result.stderr


def test_only_what_must_be_set_is_set() -> None:
    site = read(template("home", "example.net"))["config"][KEY]
    assert site.keys() == {"domains", "cluster", "edge", "tls", "mail"}
    assert read_site(json.dumps(site)).model_dump(exclude_unset=True)["mail"] == {"mailboxes": {"me@example.net": {}}}
    assert "example.org" not in template("home", "example.net")


def test_what_is_commented_out_is_valid_too() -> None:
    """Level by level, as someone would do who removes every `# `: all settings at once keep the schema, whatever they mean together."""
    text, levels = template("home", "example.net"), 0
    schema = json.loads(SCHEMA.read_text("utf-8"))
    while (less := re.sub(r"(?m)^( +)# ", r"\1", text)) != text:
        text, levels = less, levels + 1
    assert levels > 1
    jsonschema.validate(read(text), schema)
