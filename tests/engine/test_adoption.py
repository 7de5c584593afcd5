"""The owner's live system, as his Terraform leaves it, comes under the program, by the commands of the runbook."""

import base64
import json
import re
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engine.cluster import Site, named, secret_in, throwaway
from tests.engine.predecessor import ADOPT, CLAIMS, GENERATED, KEPT, LEFT, LEFT_OVER, NAMESPACE
from tools.live_site import FILE

MAIL = "mailserver-data-encrypted"
# Neither his firewall nor his Cloudflare zone is here; the claim is one that his newest code has dropped.
HERE = {
    "edge/ssh": ...,
    "dns/zones/viktorbarzin.me/cloudflare": ...,
    "mail/storage/retained_claims": {"mailserver-letsencrypt-encrypted": "1Gi"},
    **KEPT,
}


@dataclass
class Story:
    site: Site
    password: str
    added: str = ""
    refused: str = ""
    elsewhere: str = ""
    plan: str = ""
    up: str = ""
    again: str = ""
    emptied: str = ""
    four: str = ""
    written: str = ""

    def adopt(self, folder: Path) -> None:
        """`make adopt` on saved answers of the cluster; no pod runs in it, so what is read from one is put in by hand."""
        self.site.set(HERE)
        self.site.make("adopt", f"SAVE={folder}")
        live = json.loads((folder / FILE).read_text("utf-8"))
        accounts = [f"{name}@viktorbarzin.me" for name in ("me", "spam", "docs")]
        live |= {"aliases": [f"{name} me@viktorbarzin.me" for name in GENERATED], "accounts": accounts, "files": [], "missing": {}}
        (folder / FILE).write_text(json.dumps(live))
        words = ("adopt", f"FROM={folder}", f"LEAVE={LEFT}")
        self.four = self.site.make(*words, code=1)
        (folder / "store").write_text("".join(f"{line}\n" for line in live["aliases"]))
        self.written = self.site.make(*words, f"ALIASES={folder / 'store'}")


@pytest.fixture(scope="module")
def story(checkout, state, tmp_path_factory):
    """Everything the runbook says, once; the tests look at what was said and at what is there."""
    with throwaway(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.clean()
        cluster.prepare()
        story = Story(Site(checkout, cluster), secrets.token_hex(16))
        cluster.seed(story.password)
        cluster.start_secret_store()
        site = story.site
        try:
            before = site.file.read_text("utf-8")
            site.make("stack-init")
            story.added = site.file.read_text("utf-8").removeprefix(before)
            site.set(HERE | {"monitoring/dashboard/namespace": "grafana"})
            cluster.kubectl("create", "-f", "-", text=json.dumps(second_server()))
            story.refused = site.make("preview", code=1)
            keep_volumes(site)
            stop, remove = sorted(re.findall(r"^error:   (kubectl .*)$", story.refused, re.MULTILINE), key=lambda line: "delete" in line)
            for line in (stop, remove):
                done = site.run(*shlex.split(line))
                assert done.returncode == 0, done.stderr
            site.set(HERE | {"adopt": [entry for entry in ADOPT if entry != f"PersistentVolumeClaim/{MAIL}"], "mail/storage/claim": "mail"})
            story.elsewhere = site.make("preview", code=1)
            story.adopt(tmp_path_factory.mktemp("saved"))
            story.plan = site.make("preview")
            story.up = site.make("up", "YES=1")
            story.again = site.make("preview")
            site.set(HERE)
            story.emptied = site.make("up", "YES=1")
            yield story
        finally:
            cluster.stop()
            cluster.clean()


def second_server() -> dict[str, Any]:
    """Another mail server on the mail volume, whose name is not one of ours."""
    volumes = [{"name": "mail", "persistentVolumeClaim": {"claimName": MAIL}}]
    pod = {"containers": [{"name": "mail", "image": "mail"}], "volumes": volumes}
    labels = {"app": "second"}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "second", "namespace": NAMESPACE}, "spec": spec}


def keep_volumes(site: Site) -> None:
    """The runbook's second step, as it is written."""
    page = (site.checkout / "docs/runbooks/adopt.md").read_text("utf-8")
    look, keep = re.findall(r"^ {7}(kubectl .*)$", page, re.MULTILINE)
    listed = site.run(*shlex.split(look))
    assert f"pvc-{MAIL}" in listed.stdout, listed.stderr
    done = site.run(*shlex.split(keep.replace("<volume>", f"pvc-{MAIL}")))
    assert done.returncode == 0, done.stderr


def test_making_the_state_leaves_every_line_of_the_settings_as_it_was(story):
    assert re.fullmatch(r"encryptionsalt: \S+\n", story.added)


def test_a_volume_that_would_die_with_its_claim_is_named_until_it_is_kept(story):
    def mortal(text: str) -> str:
        (line,) = re.findall(r"^  (kubectl .* patch persistentvolume .*)$", text, re.MULTILINE)
        return line

    assert f" pvc-{MAIL} " in mortal(story.refused)
    assert f" pvc-{MAIL} " not in mortal(story.plan)
    done = story.site.run(*shlex.split(mortal(story.plan)))
    assert done.returncode == 0, done.stderr
    for name in CLAIMS:
        assert story.site.cluster.get("PersistentVolume", f"pvc-{name}")["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert "patch persistentvolume" not in story.site.make("preview")


def test_a_pod_that_would_start_with_empty_mailboxes_is_refused(story):
    assert f"Deployment/mailserver: the mail is in PersistentVolumeClaim/{MAIL} /data" in story.elsewhere
    assert "PersistentVolumeClaim/mail /data" in story.elsewhere


def test_a_second_server_on_the_mail_volume_has_to_stop_first(story):
    assert "Deployment/second runs on the volume" in story.refused
    assert "Deployment/second" not in story.elsewhere
    assert story.site.cluster.get("Deployment", "second")["spec"]["replicas"] == 0


def test_a_namespace_of_others_that_is_not_there_is_named(story):
    assert "the cluster has no namespace grafana" in story.refused
    assert "has no namespace" not in story.plan


def test_what_exists_and_is_in_no_state_is_named_before_anything_changes(story):
    lines = re.findall(r"^error:     - (\S+)$", story.refused, re.MULTILINE)
    assert sorted(lines) == sorted(ADOPT)
    assert re.findall(r"delete --cascade=orphan (.*)$", story.refused, re.MULTILINE) == ["externalsecret/mailserver-probe-secrets"]


def test_everything_is_taken_over_and_nothing_is_replaced_or_deleted(story):
    for text in (story.plan, story.up):
        assert named(text, "take over") == set(ADOPT)
        assert not named(text, "replace")
        assert not named(text, "delete")


def test_adopt_names_the_four_aliases_and_then_writes_the_list_that_the_preview_asks_for(story):
    assert re.findall(r"\[alias/(\S+)\]$", story.four, re.MULTILINE) == GENERATED
    assert "`adopt` is written" in story.written
    assert f"taken over ({len(ADOPT)}): " in story.written


def test_the_table_says_what_changes_in_the_words_of_the_runbook(story):
    rows = " ".join(story.plan.split("what taking over changes")[1].split())
    for words in ("docker-mailserver:15.0.0", "docker-mailserver:15.1.0", "tcpSocket 25", "NET_ADMIN", "keel.sh/policy", "keel.sh/trigger"):
        assert words in rows


@pytest.mark.parametrize(
    "reference", [*(r for r in ADOPT if not r.startswith("PersistentVolume")), "ExternalSecret/mailserver-probe-secrets"]
)
def test_the_live_object_is_the_declared_one_field_by_field(story, reference):
    as_declared(story.site, reference)


def as_declared(site: Site, reference: str) -> None:
    """The API server's own answer to writing the declared object whole is what is there."""
    wanted = json.dumps(site.declared()[reference])
    live = site.cluster.get(*reference.split("/"))
    whole = json.loads(site.cluster.kubectl("replace", "--dry-run=server", "-o", "json", "-f", "-", text=wanted))
    for thing in (live, whole):
        thing["metadata"].get("annotations", {}).pop("deployment.kubernetes.io/revision", None)
    assert live.get("spec") == whole.get("spec")
    assert live["metadata"].get("labels") == whole["metadata"].get("labels")
    assert live["metadata"].get("annotations") == whole["metadata"].get("annotations")


def test_claims_stay_bound_to_their_volumes_and_keep_their_size(story):
    for name, size in (("mailserver-data-encrypted", "10Gi"), ("mailserver-letsencrypt-encrypted", "1Gi")):
        claim = story.site.cluster.get("PersistentVolumeClaim", name)
        assert (claim["spec"]["volumeName"], claim["status"]["phase"]) == (f"pvc-{name}", "Bound")
        assert claim["spec"]["resources"]["requests"]["storage"] == size
        assert "kubernetes.io/pvc-protection" in claim["metadata"]["finalizers"]
        assert claim["metadata"]["annotations"]["pv.kubernetes.io/bind-completed"] == "yes"
    for name in ("mailserver-backup-host", "roundcube-backup-host"):
        assert story.site.cluster.get("PersistentVolume", name)["status"]["phase"] == "Bound"


def test_the_next_preview_has_nothing_to_change_with_or_without_the_list(story):
    assert "summary:\n  nothing to change\n" in story.again
    assert "summary:\n  nothing to change\n" in story.emptied


def test_what_the_predecessor_leaves_is_named_with_a_command_that_removes_it(story):
    (command,) = re.findall(r"^  (kubectl .* delete .*)$", story.again, re.MULTILINE)
    assert {reference.lower() for reference in LEFT_OVER} == set(command.split(" delete ")[1].split())
    result = story.site.run(*command.split())
    assert result.returncode == 0, result.stderr
    assert story.site.cluster.exists("deployment/roundcubemail")
    assert story.site.cluster.exists("secret/tls-secret")
    assert " delete " not in story.site.make("preview")


def test_the_predecessors_password_is_in_no_output_no_state_and_nowhere_in_the_cluster(story, state):
    encoded = base64.b64encode(story.password.encode()).decode()
    for form in (story.password, encoded):
        assert form not in story.site.said
        assert secret_in(state, form) == []
    kinds = "configmap,secret,deployment,replicaset,cronjob,externalsecret,pod"
    there = story.site.cluster.kubectl("get", kinds, "-n", NAMESPACE, "-o", "yaml")
    assert story.password not in there
    assert encoded not in there


# The last ones remove what is there: fields that Terraform had set too, and fields that an earlier change of ours has set.
CHANGES: list[dict[str, Any]] = [
    {"cluster/node_ports": {"imaps": {"proxy": 30228, "health": 30248}}, "jobs/probe/schedule": "*/30 * * * *"},
    {"mail/priority_class": {"value": 150_000}, "mail/relay": ..., "mail/srs": False, "jobs/backup/schedule": "0 4 * * *"},
]


def test_the_program_is_the_owner_of_every_field_at_each_later_change(story):
    """Fields that Terraform had set are changed and removed, several times; each time what is there is what is declared."""
    everything: dict[str, Any] = dict(HERE)
    for changes in CHANGES:
        everything |= changes
        story.site.set(everything)
        story.site.make("up", "YES=1")
    for reference in ADOPT:
        if not reference.startswith("PersistentVolume"):
            as_declared(story.site, reference)
    story.site.set(HERE)
    story.site.make("up", "YES=1")
    for reference in ADOPT:
        if not reference.startswith("PersistentVolume"):
            as_declared(story.site, reference)


def test_a_claim_and_a_backup_repository_leave_by_the_steps_of_the_runbook(story):
    """docs/runbooks/protection.md: protection is dropped by name, then the settings change, and what was there stays there."""
    old = ["PersistentVolume/mailserver-backup-host", "PersistentVolumeClaim/mailserver-backup-host"]
    old.append("PersistentVolumeClaim/mailserver-letsencrypt-encrypted")
    target = {"claim": "mailserver-backup-two", "nfs": {"server": "192.168.1.127", "path": "/srv/nfs/two", "storage_class": "nfs-truenas"}}
    moved = HERE | {"mail/storage/retained_claims": {}, "jobs/backup/target": target}
    story.site.set(moved)
    refused = story.site.make("up", "YES=1", code=1)
    assert [line.removeprefix("error:     - ") for line in refused.splitlines() if line.startswith("error:     - ")] == old
    story.site.set(HERE | {"unprotected": old})
    assert named(story.site.make("up", "YES=1"), "stop protecting") == set(old)
    story.site.set(moved)
    done = story.site.make("up", "YES=1")
    assert named(done, "stop managing (stays in the cluster)") == set(old)
    assert not named(done, "delete")
    assert {"PersistentVolume/mailserver-backup-two", "PersistentVolumeClaim/mailserver-backup-two"} <= named(done, "create")
    for reference in old:
        assert story.site.cluster.get(*reference.split("/"))["status"]["phase"] == "Bound"
