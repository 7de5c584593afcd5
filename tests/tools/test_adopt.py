"""Taking over the predecessor's recorded cluster: refused by name while anything would be lost, and written once nothing would."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from components.settings.site import KEY
from tests.conftest import copy_checkout, recording_of
from tests.engine.predecessor import ADOPT, GENERATED, KEPT, LEFT, MANAGER, objects
from tests.standins.kubernetes import Kubernetes
from tests.tools.test_dns_adopt import answer
from tools.adoption import ASPECTS, MEANINGS
from tools.commands import adopt
from tools.live_site import CLUSTER_WIDE, FILE, KINDS, NAMES_ONLY, bare

PASSWORD = "of-the-predecessor"
STORED = "friend@viktorbarzin.me friend@example.com\n"
ACCOUNTS = ["docs", "me", "r730-idrac", "spam", "truenas", "vaultwarden"]


def recorded() -> dict[str, Any]:
    """What SAVE writes of a cluster that the predecessor's Terraform has made."""
    api = Kubernetes()
    try:
        for thing in objects(PASSWORD):
            api.create(copy.deepcopy(thing), MANAGER)
        tier = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "tier-3-edge"}, "value": 400_000}
        api.create(tier, MANAGER)
        found = [bare(thing) for kind in (*KINDS, *CLUSTER_WIDE) for thing in api.listing(kind, "mailserver")]
        found = [thing for thing in found if thing["metadata"]["name"] != "kube-system"]
        names = [f"{kind}/{thing['metadata']['name']}" for kind in NAMES_ONLY for thing in api.listing(kind, "mailserver")]
    finally:
        api.stop()
    aliases = ["@viktorbarzin.me spam@viktorbarzin.me", "postmaster@viktorbarzin.me me@viktorbarzin.me", STORED.strip()]
    aliases += [f"{name} me@viktorbarzin.me" for name in GENERATED]
    accounts = [f"{name}@viktorbarzin.me" for name in ACCOUNTS]
    pod = {"aliases": aliases, "accounts": accounts, "files": []}
    return {"objects": found, "names": names, **pod, "stored_aliases": STORED, "stored_accounts": list(accounts)}


@pytest.fixture(scope="module")
def recording() -> dict[str, Any]:
    return recorded()


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recording: dict[str, Any]) -> Callable[..., Result]:
    """`tool(change, *words)`: the command on a copy of stack prod and on the recording after `change`."""
    root = copy_checkout(tmp_path / "checkout")
    monkeypatch.setattr(adopt, "ROOT", root)
    monkeypatch.setattr(adopt, "run", lambda stack: recording_of(stack.config[KEY], "prod"))  # each site once

    def call(*words: str, change: Callable[[dict[str, Any]], Any] = lambda live: None, settings: dict[str, Any] | None = None) -> Result:
        live = copy.deepcopy(recording)
        change(live)
        (tmp_path / "saved").mkdir(exist_ok=True)
        (tmp_path / "saved" / FILE).write_text(json.dumps(live))
        for place, value in (settings or {}).items():
            adopt.write_settings(root, "prod", {place: value})
        done = CliRunner().invoke(adopt.adopt_command, ["--stack", "prod", "--from", str(tmp_path / "saved"), *words])
        assert done.exception is None or type(done.exception).__name__ in {"UserError", "SystemExit"}, done.exc_info
        return done

    call.root = root  # type: ignore[attr-defined]
    return call


# His newest code has dropped this claim, so the settings leave it alone.
TAKEN = sorted(set(ADOPT) - {"PersistentVolumeClaim/mailserver-letsencrypt-encrypted"})
DATA = "PersistentVolumeClaim/mailserver-data-encrypted"


def refused(done: Result) -> list[str]:
    return re.findall(r"^  (.*)$", str(done.exception or ""), re.MULTILINE)


def names(done: Result) -> list[str]:
    return [found[1] for line in refused(done) if (found := re.search(r"\[(\S+)\]$", line))]


def file(tool: Any) -> Path:
    return tool.root / "Pulumi.prod.yaml"


def test_four_aliases_in_no_store_are_named_and_nothing_is_written(tool):
    before = file(tool).read_text()
    done = tool("--leave", LEFT, settings=KEPT)
    before = file(tool).read_text()
    assert names(done) == [f"alias/{name}" for name in GENERATED]
    assert len(refused(done)) == 4
    assert tool("--leave", LEFT).exception
    assert file(tool).read_text() == before


def test_once_they_are_in_the_store_everything_is_taken_over_and_every_other_line_stays(tool, tmp_path):
    store = tmp_path / "aliases.txt"
    store.write_text(STORED + "".join(f"{name} me@viktorbarzin.me\n" for name in GENERATED))
    shutil.copy(file(tool), tmp_path / "before.yaml")
    done = tool("--leave", LEFT, "--aliases", str(store), settings=KEPT)
    assert done.exception is None, done.exception
    site = YAML(typ="safe").load(file(tool))["config"][KEY]
    assert sorted(site["adopt"]) == TAKEN
    left = set((tmp_path / "before.yaml").read_text().splitlines()) - set(file(tool).read_text().splitlines())
    assert left == {"      workload_annotations: {keel.sh/policy: never} # the settings name the image, not Keel"}
    again = file(tool).read_text()
    assert tool("--leave", LEFT, "--aliases", str(store)).exception is None
    assert file(tool).read_text() == again


def test_each_of_them_may_be_left_behind_by_name(tool):
    done = tool("--leave", " ".join([LEFT, *(f"alias/{name}" for name in GENERATED)]), settings=KEPT)
    assert done.exception is None


def test_the_output_says_of_every_object_what_becomes_of_it(tool):
    done = tool(settings=KEPT)
    groups = dict(re.findall(r"^(taken over|created|made anew|left alone) \(\d+\): (.*)$", done.output, re.MULTILINE))
    assert sorted(groups["taken over"].split(", ")) == TAKEN
    assert groups["made anew"] == "ExternalSecret/mailserver-probe-secrets"
    assert {"ConfigMap/mailserver.config", "Secret/tls-secret"} <= set(groups["left alone"].split(", "))
    assert "Deployment/mta-sts" in groups["created"].split(", ")
    assert "docker-mailserver:15.1.0" in " ".join(done.output.split())
    assert re.findall(r"goes to the catch-all: (.*)$", done.output, re.MULTILINE) == ["truenas@viktorbarzin.me"]
    assert PASSWORD not in done.output + str(done.exception)
    assert ASPECTS.keys() == MEANINGS.keys()


def thing(live: dict[str, Any], reference: str) -> dict[str, Any]:
    kind, _, name = reference.partition("/")
    return next(each for each in live["objects"] if (each["kind"], each["metadata"]["name"]) == (kind, name))


def put(reference: str, *place: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(live: dict[str, Any]) -> None:
        part = thing(live, reference)
        for name in place[:-1]:
            part = part.setdefault(name, {})
        part[place[-1]] = value

    return change


def add(part: str, line: str) -> Callable[[dict[str, Any]], None]:
    return lambda live: live[part].append(line)


def forget(part: str) -> Callable[[dict[str, Any]], None]:
    def change(live: dict[str, Any]) -> None:
        live[part] = None
        live["missing"] = {part: "no pod runs"}

    return change


def pod(live: dict[str, Any]) -> None:
    """A policy has raised the running pod above what its Deployment says."""
    live["objects"].append({"kind": "Pod", "metadata": {"name": "x", "labels": {"app": "mailserver"}}, "spec": {"priority": 800_000}})


def second(live: dict[str, Any]) -> None:
    other = copy.deepcopy(thing(live, "Deployment/mailserver"))
    other["metadata"]["name"] = "second"
    live["objects"].append(other)


HANDLE = {"driver": "nfs.csi.k8s.io", "volumeHandle": "x", "volumeAttributes": {"server": "192.168.1.127", "share": "/srv/other"}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (add("accounts", "info@viktorbarzin.me"), "info@viktorbarzin.me is an account of the running server"),
        (
            add("aliases", "contact@viktorbarzin.me me@viktorbarzin.me,you@example.com"),
            "contact@viktorbarzin.me would no longer reach",
        ),
        (add("files", "before.dovecot.sieve"), "before.dovecot.sieve decides what becomes of mail today"),
        (add("files", "postfix-regexp.cf"), "postfix-regexp.cf decides what becomes of mail today"),
        (forget("aliases"), "aliases: could not be read from the running mail server (no pod runs)"),
        (
            put(DATA, "spec", "storageClassName", value="other"),
            "because spec.storageClassName is other",
        ),
        (
            put("Deployment/mailserver", "spec", "selector", value={"matchLabels": {"app": "mail"}}),
            "because spec.selector is",
        ),
        (put("PersistentVolume/mailserver-backup-host", "spec", "csi", value=HANDLE), "because spec.csi is"),
        (
            put("PersistentVolume/mailserver-backup-host", "spec", "claimRef", value={"namespace": "dbaas", "name": "mysql"}),
            "belongs to the claim dbaas/mysql, which is not ours",
        ),
        (put(DATA, "metadata", "deletionTimestamp", value="2026"), "is being deleted"),
        (
            put("Namespace/mailserver", "metadata", "labels", value={"tier": "3-edge", "velero.io/x": "y"}),
            "Velero may read its label",
        ),
        (put("PriorityClass/tier-3-edge", "metadata", "name", value="gone"), "there is no PriorityClass tier-3-edge"),
        (pod, "its priority is 800000, and would be 400000"),
        (second, "two mail servers damage each other's mailboxes"),
    ],
)
def test_one_thing_that_would_be_lost_replaced_or_upset_is_named(tool, tmp_path, change, words):
    store = tmp_path / "aliases.txt"
    store.write_text(STORED + "".join(f"{name} me@viktorbarzin.me\n" for name in GENERATED))
    done = tool("--leave", LEFT, "--aliases", str(store), change=change, settings=KEPT)
    lines = [line for line in refused(done) if not line.startswith("kubectl ")]
    assert lines and all(words in line for line in lines), lines


def test_mail_in_another_claim_is_refused(tool):
    done = tool(settings=KEPT | {"mail/storage/claim": "mailserver-data"})
    assert any("the mail is in PersistentVolumeClaim/mailserver-data-encrypted /data" in line for line in refused(done))


def test_another_major_version_than_the_one_that_runs_is_refused(tool):
    done = tool(settings=KEPT | {"mail/image": "docker.io/mailserver/docker-mailserver:16.0.1"})
    assert any("take it over with a release of 15, and upgrade afterwards" in line for line in refused(done))


def test_labels_that_other_controllers_read_are_named_with_the_setting_that_keeps_them(tool):
    found = names(tool())
    assert "Namespace/mailserver/tier" in found and "Deployment/mailserver/tier" in found
    assert not [name for name in found if name.startswith("Deployment/mailserver/keel")]  # the settings answer Keel
    assert "Namespace/mailserver/keel.sh/enabled" in found


def test_a_folder_without_a_recording_is_named(tool, tmp_path):
    done = CliRunner().invoke(adopt.adopt_command, ["--stack", "prod", "--from", str(tmp_path / "nowhere")])
    assert "live.json: No such file" in str(done.exception)


def test_records_are_taken_over_with_the_rest_and_the_firewalls_plan_is_shown(tool, tmp_path, site):
    store = tmp_path / "aliases.txt"
    store.write_text(STORED + "".join(f"{name} me@viktorbarzin.me\n" for name in GENERATED))
    rows = list(answer(site("prod")).values())
    www = {"id": "f" * 32, "name": "www.viktorbarzin.me", "type": "A", "content": "192.0.2.1"}
    frontend = {"binds": ["10.0.20.1:25"], "servers": {}}
    plan = {"before": {"frontends": {}}, "after": {"frontends": {"mailserver_proxy_25": frontend}}, "warnings": ["HAProxy is old"]}

    def read(live: dict[str, Any]) -> None:
        live |= {"zones": {"viktorbarzin.me": [*rows, www]}, "firewall": {"haproxy": plan}}

    done = tool("--leave", LEFT, "--aliases", str(store), change=read, settings=KEPT)
    assert done.exception is None, done.exception
    zone = YAML(typ="safe").load(file(tool))["config"][KEY]["dns"]["zones"]["viktorbarzin.me"]
    assert sorted(zone["adopt"].values()) == sorted(row["id"] for row in rows)
    assert zone["other_records"] == 1
    assert "+ frontend mailserver_proxy_25: bind 10.0.20.1:25" in done.output
    assert "! HAProxy is old" in done.output
    assert "new: _smtp._tls.viktorbarzin.me" in done.output
