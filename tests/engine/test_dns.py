"""Ordinary edits of the records with the real engine, on a zone with Cloudflare's rules.

The program is the DNS component with everything that stands in front of it, and no cluster: its policy server is left out.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.dns.live import parse
from components.dns.match import says_the_same
from components.dns.records import records
from components.settings.parse import parse_site
from components.settings.site import KEY
from tests.conftest import change, settings
from tests.engine.conftest import Cli
from tests.standins.cloudflare import Cloudflare
from tools.offline.stackfile import ROOT

ZONE = "example.org"
Z = f"dns/zones/{ZONE}"
D = f"domains/{ZONE}/dns"

PROGRAM = f"""\
import sys

sys.path.insert(0, {str(ROOT)!r})
import pulumi

from components.base import Context
from components.dns import component
from components.dns.gate import verified
from components.errors import UserError
from components.settings.parse import parse_site

component.policy_server = lambda _component: []
try:
    site = parse_site(pulumi.Config("mailserver").require("site"))
    for warning in verified(site).warnings:
        pulumi.log.warn(warning)
    component.Dns("dns", Context(site, cluster=None))
except UserError as error:
    raise pulumi.RunError(str(error)) from None
"""


class Stack:
    """Stack dev's domains in one zone at Cloudflare."""

    def __init__(self, folder: Path, api: Cloudflare) -> None:
        self.folder, self.api = folder, api
        self.zone = api.zone(ZONE)
        (folder / "Pulumi.yaml").write_text(
            f"name: mailserver\nruntime: {{name: python, options: {{toolchain: pip, virtualenv: {ROOT}/.venv}}}}\n"
        )
        (folder / "__main__.py").write_text(PROGRAM)
        self.cli = Cli(folder)
        self.cli("stack", "init", "dev")
        self.set()

    def set(self, changes: dict[str, Any] | None = None) -> None:
        """Settings by path, above those of stack dev with the zone's id."""
        site = settings("dev")
        site["domains"].pop("example.net")
        site["mail"]["aliases"] = {name: ends for name, ends in site["mail"]["aliases"].items() if not name.endswith("example.net")}
        site["mail"]["mailboxes"]["alice@example.org"] = {}
        for path, value in ({Z: {"cloudflare": self.zone}} | (changes or {})).items():
            change(site, path, value)
        self.site = parse_site(json.dumps(site))
        with (self.folder / "Pulumi.dev.yaml").open("w") as stream:
            YAML().dump({"config": {KEY: site}}, stream)

    def up(self, changes: dict[str, Any] | None = None) -> list[tuple[str, str]]:
        """The calls that changed something."""
        self.set(changes)
        before = len(self.api.written())
        self.cli("up", "--yes", "--skip-preview")
        return self.api.written()[before:]

    def holds(self) -> None:
        """The zone has our records, each once and none of an earlier edit, and a preview agrees."""
        ours = [row for row in parse(list(self.api.zones[self.zone].values()))[0] if row.ours]
        expected = [record for record in records(self.site) if record.zone == ZONE]
        assert len(ours) == len(expected)
        assert [record.key for record in expected if not any(says_the_same(record, row) for row in ours)] == []
        self.cli("preview", "--expect-no-changes")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloudflare]:
    api = Cloudflare()
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", api.url)
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", api.token)
    yield api
    api.stop()


@pytest.fixture
def stack(tmp_path: Path, api: Cloudflare, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """A new stack; with the provider's plugin where it is installed, else with the stand-in."""
    home = Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    if not any(home.glob("plugins/resource-cloudflare-*")):
        plugin = tmp_path / "bin/pulumi-resource-cloudflare"
        plugin.parent.mkdir()
        plugin.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m tests.standins.cloudflare_plugin "$@"\n')
        plugin.chmod(0o755)
        monkeypatch.setenv("PATH", f"{plugin.parent}:{os.environ['PATH']}")
    for folder in ("state", "program"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("PULUMI_BACKEND_URL", (tmp_path / "state").as_uri())
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    monkeypatch.setenv("PULUMI_SKIP_UPDATE_CHECK", "true")
    return Stack(tmp_path / "program", api)


def test_an_up_is_followed_by_a_preview_without_changes(stack: Stack):
    assert {verb for verb, _ in stack.up()} == {"POST"}
    stack.holds()
    stack.cli("refresh", "--yes")
    stack.holds()
