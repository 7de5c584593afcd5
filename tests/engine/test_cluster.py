"""What an `up` does to a live cluster: it waits, it protects, and it knows which cluster it is on."""

import re
import shlex
import subprocess

import pytest

from tests.engine.cluster import AS_PRODUCTION, VOLUMES, deployed, named, needs_control_plane
from tests.engine.predecessor import CLASS, NAMESPACE

CLAIM, WEBMAIL = VOLUMES
PROTECTED = ["Namespace/mailserver", *(f"PersistentVolumeClaim/{name}" for name in (CLAIM, WEBMAIL))]


@pytest.fixture(scope="module")
def running(checkout, state, tmp_path_factory):
    with deployed(checkout, tmp_path_factory.mktemp("cluster")) as site:
        yield site


@pytest.fixture
def site(running):
    """With the settings that were deployed first."""
    running.set(AS_PRODUCTION)
    return running


def test_a_fresh_site_has_nothing_to_change_afterwards(site):
    assert "summary:\n  nothing to change\n" in site.make("preview")


def test_the_identity_of_the_cluster_comes_and_goes_without_replacing_anything(site):
    site.set(AS_PRODUCTION | {"cluster/uid": None})
    for _ in range(2):
        assert not named(site.make("up", "YES=1"), "replace")
        site.set(AS_PRODUCTION)


@needs_control_plane
def test_up_ends_when_a_pod_of_the_new_generation_is_ready_and_not_before(site):
    cluster = site.cluster
    site.set(AS_PRODUCTION | {"mail/resources": {"memory_request": "64Gi", "memory_limit": "64Gi"}})  # the node has 32
    command = ["make", "-o", ".venv/.locked", "up", "STACK=dev", "YES=1"]
    with subprocess.Popen(command, cwd=site.checkout, env=site.environment(), stdout=subprocess.PIPE, text=True) as up:
        try:
            unschedulable = 'custom-columns=SCHEDULED:.status.conditions[?(@.type=="PodScheduled")].status'
            cluster.until("False", "pod", "-l", "app=mailserver", "-n", NAMESPACE, "--no-headers", "--output", unschedulable)
            assert up.poll() is None
        finally:
            cluster.resize_node("128Gi")
            said, _ = up.communicate(timeout=600)
    assert up.returncode == 0, said
    live = cluster.get("Deployment", "mailserver")
    assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
    assert live["status"]["readyReplicas"] == live["status"]["updatedReplicas"] == 1


def test_another_priority_is_a_new_class_before_the_old_one_goes(site):
    site.set(AS_PRODUCTION | {"mail/priority_class": {"value": 150_000}})
    said = site.make("up", "YES=1")
    assert named(said, "replace") == {"PriorityClass/mailserver-150000"}
    assert site.cluster.get("Deployment", "mailserver")["spec"]["template"]["spec"]["priorityClassName"] == "mailserver-150000"
    assert not site.cluster.exists("priorityclass/mailserver-100000")


def test_a_renamed_context_in_another_file_is_the_same_cluster(site, tmp_path, monkeypatch):
    site.make("up", "YES=1")
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(site.cluster.kubectl("config", "view", "--raw", "--flatten"))
    site.cluster.kubectl("config", "rename-context", site.cluster.context, "renamed", "--kubeconfig", str(kubeconfig))
    monkeypatch.setattr(site.cluster, "kubeconfig", str(kubeconfig))
    site.set(AS_PRODUCTION | {"cluster/context": "renamed"})
    said = site.make("preview")
    assert not named(said, "replace")
    assert named(said, "change") <= {"kubernetes/cluster"}


def test_a_cluster_that_is_not_there_or_another_one_is_said_first(site, monkeypatch):
    site.set(AS_PRODUCTION | {"cluster/context": "elsewhere"})
    said = site.make("preview")
    assert said.index("the cluster was not asked") < said.index("summary:")
    assert "error: the cluster was not asked" in site.make("up", "YES=1", code=1)
    other = "00000000-0000-4000-8000-000000000000"
    site.set(AS_PRODUCTION | {"cluster/uid": other})
    assert f"not to {other}" in site.make("preview", code=1)
    unasked = site.run("pulumi", "preview", "--non-interactive", "--stack", "dev")
    assert unasked.returncode != 0
    assert "marked for protection" in unasked.stdout + unasked.stderr
    site.set(AS_PRODUCTION)
    monkeypatch.setenv("PULUMI_K8S_DELETE_UNREACHABLE", "true")
    assert "unset it" in site.make("preview", code=1)


def test_without_a_terminal_an_up_wants_to_be_told(site):
    assert "YES=1" in site.make("up", code=1)


def test_what_once_was_advised_no_longer_ends_in_lost_mail(site):
    """`production: false`, an `up`, a `destroy`: this deleted the Namespace, all claims and their volumes."""
    site.set(AS_PRODUCTION | {"production": False})
    site.make("up", "YES=1")
    destroy = ("pulumi", "destroy", "--yes", "--non-interactive", "--stack", "dev")
    refused = site.run(*destroy)
    assert refused.returncode != 0
    assert "protected" in refused.stdout + refused.stderr
    assert all(site.cluster.exists(reference) for reference in PROTECTED)


def test_a_claim_that_leaves_the_program_is_refused_by_the_name_that_it_has_in_the_cluster(site):
    site.set(AS_PRODUCTION | {"mail/storage": {"storage_class": CLASS, "claim": "other"}})
    refused = site.make("preview", code=1)
    assert "Traceback" not in refused
    assert refused.splitlines()[-5:-1] == [
        "error: mail is in these or goes through them, so they are protected, and this would delete or replace them:",
        "error:   unprotected:",
        f"error:     - PersistentVolumeClaim/{CLAIM}",
        "error: undo the change in the settings, or follow docs/runbooks/protection.md, which says when to write these lines there",
    ]


def test_a_site_retires_by_the_steps_of_the_runbook_and_the_mail_stays(site):
    """What the refusal lists is written into the settings, as the page says; until then nothing goes."""
    refused = site.make("destroy", "YES=1", code=1)
    listed = re.findall(r"^error:     - (.*)$", refused, re.MULTILINE)
    assert listed == PROTECTED
    site.set(AS_PRODUCTION | {"unprotected": listed})
    said = site.make("up", "YES=1")
    assert named(said, "stop protecting") == set(PROTECTED)
    assert not named(said, "delete")
    site.make("destroy", "YES=1")
    assert all(site.cluster.exists(reference) for reference in PROTECTED)
    assert not site.cluster.exists("deployment/mailserver")
    assert site.cluster.get("PersistentVolumeClaim", CLAIM)["status"]["phase"] == "Bound"
    page = (site.checkout / "docs/runbooks/protection.md").read_text("utf-8")
    for line in re.findall(r"^ {7}(kubectl .*)$", page, re.MULTILINE):
        done = site.run(*shlex.split(line))
        assert done.returncode == 0, done.stderr
    assert not site.cluster.exists(f"PersistentVolumeClaim/{CLAIM}")
