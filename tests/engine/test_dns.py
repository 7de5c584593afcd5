"""Ordinary edits of the records with the real engine, on a zone with Cloudflare's rules.

The program is the DNS component with everything that runs before it, and no cluster: its policy server is left out.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.checks.registry import read_site
from components.dns.live import parse
from components.dns.match import matches, says_the_same
from components.dns.records import Record, records
from components.settings.site import KEY
from tests.conftest import change, settings
from tests.engine.conftest import Cli
from tests.standins.cloudflare import Cloudflare
from tools.offline.stackfile import ROOT

ZONE = "example.org"
Z = f"dns/zones/{ZONE}"
D = f"domains/{ZONE}/dns"

PROGRAM = f"""\
import os, sys

sys.path.insert(0, {str(ROOT)!r})
import pulumi

from components.base import Context, cluster_provider
from components.checks.registry import judge, read_site, refuse
from components.dns import component
from components.errors import UserError

component.policy_server = lambda _component: []
try:
    site = read_site(pulumi.Config("mailserver").require("site"))
    if "DNS_TEST_UNJUDGED" not in os.environ:
        refuse(judge(site))
    if site.dns:
        component.Dns("dns", Context(site, cluster_provider(site)), namespace=None)
except UserError as error:
    raise pulumi.RunError(str(error)) from None
"""


NOTHING_DEPLOYED = '{"version": 3, "deployment": {}}'


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
        for path, value in ({Z: {"release": ["*"], "cloudflare": self.zone}} | (changes or {})).items():
            change(site, path, value)
        self.site = read_site(json.dumps(site))
        with (self.folder / "Pulumi.dev.yaml").open("w") as stream:
            YAML().dump({"config": {KEY: site}}, stream)

    def up(self, changes: dict[str, Any] | None = None) -> list[tuple[str, str]]:
        """The calls that changed something."""
        self.set(changes)
        before = len(self.api.written())
        self.cli("up", "--yes", "--skip-preview")
        return self.api.written()[before:]

    def refused(self, changes: dict[str, Any]) -> str:
        """What a refused up says. Without a preview: the refusal must not depend on a person reading one."""
        self.set(changes)
        return self.cli.refused("up", "--yes", "--skip-preview")

    def holds(self) -> None:
        """The zone has our records, each once and none of an earlier edit, and a preview agrees."""
        ours = [row for row in parse(list(self.api.zones[self.zone].values()))[0] if row.ours]
        expected = [record for record in records(self.site) if record.zone == ZONE]
        assert len(ours) == len(expected)
        assert [record.key for record in expected if not any(says_the_same(record, row) for row in ours)] == []
        self.cli("preview", "--expect-no-changes")


# More than one record of each kind that may have several; what the edits below start from.
SEVERAL: dict[str, list[Any]] = {
    "dns/hosts/mail.example.org/addresses": ["192.0.2.25", "192.0.2.26", "2001:db8::25"],
    f"{D}/verification": ["code=one", "code=two", "other:three"],
    f"{D}/caa": [{"tag": "issue", "value": name} for name in ("one.example", "two.example", "letsencrypt.org")],
}
WEB = {"dns/web": {"addresses": ["192.0.2.80", "2001:db8::80"]}}
BASE: dict[str, Any] = SEVERAL | WEB


@pytest.fixture(scope="module")
def api() -> Iterator[Cloudflare]:
    api = Cloudflare()
    yield api
    api.stop()


def plugin_path(folder: Path) -> str:
    """PATH with the stand-in for the provider's plugin, which goes into `folder`; as it is where the real one is installed."""
    path, home = os.environ["PATH"], Path(os.environ.get("PULUMI_HOME", Path.home() / ".pulumi"))
    if any(home.glob("plugins/resource-cloudflare-*")):
        return path
    plugin = folder / "bin/pulumi-resource-cloudflare"
    plugin.parent.mkdir()
    plugin.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m tests.standins.cloudflare_plugin "$@"\n')
    plugin.chmod(0o755)
    return f"{plugin.parent}:{path}"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, api: Cloudflare) -> Iterator[Stack]:
    """One stack for all tests; with the provider's plugin where it is installed, else with the stand-in."""
    folder = tmp_path_factory.mktemp("dns")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", plugin_path(folder))
        for name in ("state", "program"):
            (folder / name).mkdir()
        patch.setenv("PULUMI_BACKEND_URL", (folder / "state").as_uri())
        patch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
        patch.setenv("PULUMI_SKIP_UPDATE_CHECK", "true")
        patch.setenv("CLOUDFLARE_BASE_URL", api.url)
        patch.setenv("CLOUDFLARE_API_TOKEN", api.token)
        yield Stack(folder / "program", api)


@pytest.fixture
def stack(deployed: Stack) -> Stack:
    """As it is before an edit, whatever the last test left."""
    deployed.up(BASE)
    return deployed


def test_an_up_is_followed_by_a_preview_without_changes(stack: Stack):
    stack.holds()
    stack.cli("refresh", "--yes")
    stack.holds()


EDITS: dict[str, dict[str, Any]] = {
    "the first of several removed": {setting: value[1:] for setting, value in SEVERAL.items()},
    "a new one in front": {setting: [*value[2:], *value[:2]] for setting, value in SEVERAL.items()}
    | {"dns/hosts/mail.example.org/addresses": ["192.0.2.9", *SEVERAL["dns/hosts/mail.example.org/addresses"]]},
    "the web host by name": {"dns/web": {"name": "ingress.example.net"}},
    "one address of the web host, and another": {"dns/web": {"addresses": ["2001:db8::80", "192.0.2.9", "192.0.2.90"]}},
    "another mail host": {
        f"{D}/mx": {"mx2.example.org": 10, "mail.example.org": 20},
        "dns/hosts/mx2.example.org": {"addresses": ["192.0.2.26"]},
    },
    "no autoconfig, no SRV": {f"{D}/autoconfig": None, f"{D}/srv": []},
    "everything else that is said": {f"{D}/spf": {"mx": True, "all": "softfail"}, f"{D}/mta_sts/max_age": 86400, "dns/ttl": 600},
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_works_forwards_and_back(what: str, stack: Stack):
    stack.up(BASE | EDITS[what])
    stack.holds()
    stack.up(BASE)
    stack.holds()


def test_an_order_means_nothing(stack: Stack):
    assert stack.up({setting: value[::-1] for setting, value in SEVERAL.items()} | WEB) == []


def test_no_edit_of_a_list_takes_a_record_out_that_stays(stack: Stack):
    calls = stack.up(BASE | EDITS["the first of several removed"])
    assert sorted(verb for verb, _ in calls) == ["DELETE"] * 3
    calls = stack.up(BASE | EDITS["a new one in front"])
    assert sorted({verb for verb, _ in calls}) == ["POST"], "what was removed comes back, and a fourth address"


def test_an_enforced_policy_names_a_mail_host_before_the_zone_does(stack: Stack):
    enforce = BASE | {f"{D}/mta_sts/mode": "enforce", f"{D}/mta_sts/testing_since": "2026-01-01", f"{D}/mta_sts/max_age": 1_209_600}
    more = {"dns/hosts/mx2.example.org": {"addresses": ["192.0.2.27"]}, f"{D}/mx": {"mail.example.org": 10, "mx2.example.org": 20}}
    stack.up(enforce)
    calls = [text.split(" ")[:3] for verb, text in stack.up(enforce | more) if verb != "DELETE"]
    announced, published = (calls.index(call) for call in (["_mta-sts.example.org", "TXT", calls_id(stack)], ["example.org", "MX", "20"]))
    assert announced < published
    assert "previous_mx: mx2.example.org is still an MX of example.org" in stack.refused(enforce)
    stack.up(enforce | {f"{D}/mta_sts/previous_mx": ["mx2.example.org"]})
    assert not any("MX 20 mx2" in text for text in stack.api.texts(stack.zone))
    stack.up(enforce)
    stack.holds()


def calls_id(stack: Stack) -> str:
    (announcement,) = [record for record in records(stack.site) if record.key == "mta-sts"]
    return announcement.content.split(" ")[0]


def test_what_mail_depends_on_goes_in_two_steps(stack: Stack):
    protected = BASE | {f"{Z}/release": []}
    fewer = protected | {"dns/hosts/mail.example.org/addresses": ["192.0.2.26", "2001:db8::25"]}
    stack.up(protected)
    before = stack.api.texts(stack.zone)
    assert "add 'mail:a-192.0.2.25' to release, run `up`, and remove it then" in stack.refused(fewer)
    release = {f"{Z}/release": ["mail:a-192.0.2.25"]}
    assert "protect" in stack.refused(fewer | release), "the `up` with both is left out"
    assert stack.api.texts(stack.zone) == before
    assert stack.up(protected | release) == []
    assert stack.up(fewer | release) == [("DELETE", "mail.example.org A 192.0.2.25")]
    stack.up(fewer)
    stack.holds()


def test_a_wrong_zone_id_deletes_nothing(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    before, wrong = stack.api.texts(stack.zone), BASE | {Z: {"release": ["*"], "cloudflare": "f" * 32}}
    assert "dns.zones.example.org.cloudflare: there is no zone with this id" in stack.refused(wrong)
    other = stack.api.zone("example.net")
    stack.api.add(other, name="www.example.net", type="A", content="192.0.2.1")
    assert "is the id of another zone, which holds www.example.net" in stack.refused(BASE | {Z: {"release": ["*"], "cloudflare": other}})
    stack.api.written().clear()
    # As the engine meets it where nothing of ours looked first.
    monkeypatch.setenv("DNS_TEST_UNJUDGED", "1")
    assert "7003" in stack.refused(wrong)
    lost = {text.split(" ")[0] for text in set(before) - set(stack.api.texts(stack.zone))}
    assert lost <= {record.name for record in records(stack.site) if record.unit}, "those that are replaced as a unit"
    monkeypatch.delenv("DNS_TEST_UNJUDGED")
    stack.up(BASE)
    stack.holds()


def test_a_zone_moves_to_another_account(stack: Stack):
    old, new = stack.zone, stack.api.zone(ZONE)
    stack.up(BASE | {Z: {"release": ["*"], "cloudflare": new}})
    stack.zone = new
    stack.up(BASE | {Z: {"release": ["*"], "cloudflare": new}})
    assert stack.api.texts(old) == []
    stack.holds()


def test_a_lost_token_changes_nothing(stack: Stack, monkeypatch: pytest.MonkeyPatch):
    before, edit = stack.api.texts(stack.zone), BASE | EDITS["everything else that is said"]
    monkeypatch.setenv("CLOUDFLARE_API_TOKEN", "x" * 40)
    assert "CLOUDFLARE_API_TOKEN: is not valid for this zone; create a token with Zone > DNS > Edit on example.org" in stack.refused(edit)
    monkeypatch.delenv("CLOUDFLARE_API_TOKEN")
    stack.set(BASE)
    stack.cli("up", "--yes", "--skip-preview", "--expect-no-changes")
    assert stack.api.texts(stack.zone) == before


def test_a_busy_api_is_waited_for(stack: Stack):
    stack.api.faults.extend([429, 500])
    stack.up(BASE | EDITS["everything else that is said"])
    stack.holds()


def test_state_of_an_earlier_version_moves_to_the_new_keys(stack: Stack):
    text = stack.cli("stack", "export")
    for record in records(stack.site):
        if record.former:
            text = text.replace(f'::{ZONE}/{record.key}"', f'::{ZONE}/{record.former}"')
    assert "::example.org/mail:a-2" in text
    stack.cli("stack", "import", text=text)
    assert stack.up(BASE) == []
    stack.holds()


def test_live_records_are_adopted_and_a_forgotten_adoption_is_refused(stack: Stack):
    stack.up({"dns/zones": {}})  # leaves Cloudflare, so that the state knows of no record
    zone = stack.zone = stack.api.zone(ZONE)
    for record in (record for record in parsed(stack, BASE) if record.zone == ZONE):
        row = {"name": record.name, "type": record.type, "priority": record.priority, "ttl": 1}
        row |= {"data": dict(record.data)} if record.data else {"content": record.content}
        stack.api.add(zone, **{name: value for name, value in row.items() if value is not None})
    stack.api.add(zone, name="www.example.org", type="A", content="192.0.2.1")
    ids = {key: row.id for key, row in matches(parsed(stack, BASE), parse(list(stack.api.zones[zone].values()))[0]).items()}
    spf = ids["spf"]
    stack.api.zones[zone][spf] |= {"content": '"v=spf1 mx a ~all"'}
    before = set(stack.api.zones[zone])

    forgotten = {key: id_ for key, id_ in ids.items() if key != "spf"}
    refusal = stack.refused(BASE | {Z: {"release": ["*"], "cloudflare": zone, "adopt": forgotten}})
    assert f'example.org already has TXT "v=spf1 mx a ~all" (id {spf}); take it over with `spf: {spf}`' in refusal
    calls = stack.up(BASE | {Z: {"release": ["*"], "cloudflare": zone, "adopt": ids}})
    assert {verb for verb, _ in calls} == {"PUT"}
    assert set(stack.api.zones[zone]) == before
    stack.holds()
    assert stack.up(BASE | {Z: {"release": ["*"], "cloudflare": zone}}) == []


def parsed(stack: Stack, changes: dict[str, Any]) -> list[Record]:
    stack.set(changes)
    return list(records(stack.site))


def test_a_second_stack_and_a_lost_state_take_nothing_over_by_accident(stack: Stack):
    before, state = stack.api.texts(stack.zone), stack.cli("stack", "export")
    stack.cli("stack", "import", text=NOTHING_DEPLOYED)
    said = stack.cli.refused("preview")
    assert 'dns.zones.example.org.adopt: example.org TXT "v=spf1 mx -all" is live and ours, but not in the state of this stack' in said
    assert "is live and ours" in stack.refused(BASE | {f"{D}/spf": {"mx": True, "all": "softfail"}}), "another SPF beside it"
    assert stack.api.texts(stack.zone) == before
    ids = {key: row.id for key, row in matches(parsed(stack, BASE), parse(list(stack.api.zones[stack.zone].values()))[0]).items()}
    stack.cli("stack", "import", text=NOTHING_DEPLOYED)
    assert {verb for verb, _ in stack.up(BASE | {f"{Z}/adopt": ids})} <= {"PUT"}
    stack.holds()
    assert stack.api.texts(stack.zone) == before
    stack.cli("stack", "import", text=state)
    assert stack.up(BASE) == []


def test_a_record_that_an_interrupted_up_left_is_named(stack: Stack):
    exported = json.loads(stack.cli("stack", "export"))
    resources = exported["deployment"]["resources"]
    exported["deployment"]["resources"] = [resource for resource in resources if not resource["urn"].endswith("::example.org/tlsrpt")]
    stack.cli("stack", "import", text=json.dumps(exported))
    said = stack.cli.refused("preview")
    (row,) = [row for row in stack.api.zones[stack.zone].values() if row["name"] == "_smtp._tls.example.org"]
    stack.up(BASE | {f"{Z}/adopt": {"tlsrpt": row["id"]}})
    stack.holds()
    assert f"take it over with `tlsrpt: {row['id']}`" in said
    assert "mail.example.org A" not in said, "the state knows it"


def test_without_dns_in_the_settings_mail_records_stay(stack: Stack):
    stack.up(BASE | {f"{Z}/release": []})
    expected, before = [record for record in records(stack.site) if record.carries_mail], stack.api.texts(stack.zone)
    stack.set({"dns": None})
    assert "protect" in stack.cli.refused("preview")
    assert stack.api.texts(stack.zone) == before
    stack.refused({"dns": None})
    live = parse(list(stack.api.zones[stack.zone].values()))[0]
    assert [record.key for record in expected if not any(says_the_same(record, row) for row in live)] == []
