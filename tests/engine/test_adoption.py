"""The owner's live system, as his Terraform leaves it, comes under the program, by the commands of the runbook."""

import base64
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

import pytest

from tests.engine.cluster import Site, named, secret_in, throwaway
from tests.engine.predecessor import ADOPT, LEFT_OVER, NAMESPACE

# Neither his firewall nor his Cloudflare zone is here; the claim is one that his newest code has dropped.
HERE = {
    "edge/ssh": ...,
    "dns/zones/viktorbarzin.me/cloudflare": ...,
    "mail/storage/retained_claims": {"mailserver-letsencrypt-encrypted": "1Gi"},
}


@dataclass
class Story:
    site: Site
    password: str
    refused: str = ""
    plan: str = ""
    up: str = ""
    again: str = ""
    emptied: str = ""


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
            site.make("stack-init")
            site.set(HERE)
            story.refused = site.make("preview", code=1)
            print(story.refused)
            (remove,) = re.findall(r"^error:   (kubectl .*)$", story.refused, re.MULTILINE)
            assert site.run(*remove.split()).returncode == 0
            site.set(HERE | {"adopt": ADOPT})
            story.plan = site.make("preview")
            story.up = site.make("up", "YES=1")
            story.again = site.make("preview")
            site.set(HERE)
            story.emptied = site.make("up", "YES=1")
            yield story
        finally:
            cluster.stop()
            cluster.clean()


def test_what_exists_and_is_in_no_state_is_named_before_anything_changes(story):
    lines = re.findall(r"^error:     - (\S+)$", story.refused, re.MULTILINE)
    assert sorted(lines) == sorted(ADOPT)
    assert re.findall(r"delete --cascade=orphan (.*)$", story.refused, re.MULTILINE) == ["externalsecret/mailserver-probe-secrets"]


def test_everything_is_taken_over_and_nothing_is_replaced_or_deleted(story):
    for text in (story.plan, story.up):
        assert named(text, "take over") == set(ADOPT)
        assert not named(text, "replace")
        assert not named(text, "delete")


def test_the_table_says_what_changes_in_the_words_of_the_runbook(story):
    rows = " ".join(story.plan.split("what taking over changes")[1].split())
    for words in ("docker-mailserver:15.0.0", "docker-mailserver:15.1.0", "tcpSocket 25", "NET_ADMIN", "keel.sh/policy", "tier: 3-edge"):
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
