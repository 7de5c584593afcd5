"""Drift: what others change is named, what other controllers add is not, and nothing is changed by looking."""

import json
import re
import subprocess

import pytest

from tests.engine.cluster import AS_PRODUCTION, Site, deployed
from tests.engine.predecessor import NAMESPACE


@pytest.fixture(scope="module")
def site(checkout, state, tmp_path_factory):
    with deployed(checkout, tmp_path_factory.mktemp("cluster")) as site:
        yield site


def drift(site: Site) -> tuple[int, list[str]]:
    """The exit code, and what was named."""
    result: subprocess.CompletedProcess[str] = site.run(str(site.checkout / ".venv/bin/python"), "-m", "tools", "drift", "--stack", "dev")
    return result.returncode, re.findall(r"^[A-Z]\w+/\S+: .*$", result.stdout, re.MULTILINE)


def patch(site: Site, kind: str, name: str, change: object) -> None:
    site.cluster.kubectl("patch", kind, name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))


def test_a_site_as_the_last_up_left_it_has_none(site):
    assert drift(site) == (0, [])


def test_what_other_controllers_add_is_not_drift(site):
    """An image updater's annotation, Reloader's in the pod template, a policy's label and dnsConfig, the autoresizer's size."""
    patch(site, "deployment", "mailserver", {"metadata": {"annotations": {"keel.sh/trigger": "poll"}}})
    patch(site, "deployment", "mailserver", {"spec": {"template": {"metadata": {"annotations": {"reloader.stakater.com/last": "x"}}}}})
    patch(site, "deployment", "mta-sts", {"spec": {"template": {"spec": {"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}}}})
    patch(site, "namespace", NAMESPACE, {"metadata": {"labels": {"tier": "3-edge"}}})
    patch(site, "pvc", "mailserver-data", {"spec": {"resources": {"requests": {"storage": "8Gi"}}}})
    assert drift(site) == (0, [])


def test_a_changed_field_and_a_missing_object_are_named_until_they_are_back(site):
    patch(site, "service", "mailserver-proxy", {"spec": {"externalTrafficPolicy": "Local"}})
    patch(site, "deployment", "mailserver", {"spec": {"replicas": 0}})
    site.cluster.kubectl("delete", "networkpolicy", "mailserver", "-n", NAMESPACE)
    wrong = [
        "Deployment/mailserver: spec.replicas was 1 and is 0",
        "NetworkPolicy/mailserver: is gone",
        "Service/mailserver-proxy: spec.externalTrafficPolicy was Cluster and is Local",
    ]
    assert drift(site) == (1, wrong)
    assert drift(site) == (1, wrong)
    site.make("up", "YES=1", "REFRESH=1")
    assert drift(site) == (0, [])


def test_a_cluster_that_does_not_answer_is_not_called_well(site):
    assert drift(site)[0] == 0
    site.set(AS_PRODUCTION | {"cluster/context": "elsewhere"})
    try:
        assert drift(site) == (2, [])
    finally:
        site.set(AS_PRODUCTION)
