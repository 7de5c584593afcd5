"""Each rule over rendered objects, with an object that breaks it."""

import copy

import pytest

from components.checks.finding import run
from components.checks.objects import AREA, Declared, Rendered

POD = {
    "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
    "containers": [
        {
            "name": "c",
            "image": "registry/app:1.2.3",
            "resources": {"limits": {"memory": "1Gi"}},
            "securityContext": {"capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
            "env": [
                {"name": "SSL_KEY_PATH", "value": "/tls/key"},
                {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}},
            ],
        }
    ],
}
KEPT = {"protect": True, "retainOnDelete": True}


def deployment(pod):
    return {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": pod}}}


def cron_job(pod):
    return {"kind": "CronJob", "metadata": {"name": "d"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}


@pytest.fixture
def findings(site):
    """Code and place of what the rules find in one object of a stack."""

    def find(manifest, options=KEPT, stack="prod"):
        return [(f.code, f.setting) for f in run([AREA], Rendered(site(stack), [Declared(manifest, options)]))]

    return find


@pytest.mark.parametrize("wrap", [deployment, cron_job])
def test_a_pod_that_keeps_every_rule_is_accepted(findings, wrap):
    assert findings(wrap(POD)) == []


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("image", "registry/app", "objects.image-without-tag"),
        ("image", "registry/app:latest", "objects.image-without-tag"),
        ("resources", {}, "objects.no-memory-limit"),
        ("securityContext", {}, "objects.capabilities"),
        ("securityContext", {"privileged": True, "capabilities": {"drop": ["ALL"]}}, "objects.privileged"),
        ("securityContext", {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}, "objects.privileged"),
        ("env", [{"name": "IMAP_PASSWORD", "value": "x"}], "objects.secret-in-environment"),
        ("volumeMounts", [{"name": "tls", "mountPath": "/tls/crt", "subPath": "tls.crt"}], "objects.secret-by-subpath"),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_a_container_that_breaks_a_rule_is_named(findings, field, value, code, kind):
    pod = copy.deepcopy(POD)
    broken = {**pod["containers"][0], "name": "broken", field: value}
    pod[kind] = [broken, *pod["containers"]]
    for wrap, label in ((deployment, "Deployment/d broken"), (cron_job, "CronJob/d broken")):
        assert findings(wrap(pod)) == [(code, label)]


def secret_texts():
    yield "-----BEGIN PRIVATE " + "KEY-----\n" + "MIIB" * 8
    yield "me@example.org|{SHA512-CRYPT}$6$" + "salt" * 8
    yield "me@example.org|$2y$" + "06$" + "a" * 30
    yield "[smtp.example.org]:587 login:" + "hunter2"
    yield "key = xsmtpsib-" + "0123456789abcdef" * 2
    yield "postgres://user:" + "hunter2@db/x"


@pytest.mark.parametrize("text", list(secret_texts()))
def test_a_secret_in_a_config_map_is_found(findings, text):
    config_map = {"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"file": text}}
    assert findings(config_map) == [("objects.secret-in-config-map", "ConfigMap/m")]


@pytest.mark.parametrize("kind", ["Namespace", "PersistentVolume", "PersistentVolumeClaim"])
@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_only_a_protected_and_retained_volume_is_safe(findings, kind, stack):
    claim = {"kind": kind, "metadata": {"name": "c"}}
    assert findings(claim, KEPT, stack) == []
    for partly in ({"protect": True}, {"retainOnDelete": True}):
        assert findings(claim, partly, stack) == [("objects.unprotected", f"{kind}/c")]
    assert findings({"kind": "ConfigMap", "metadata": {"name": "m"}}, {}) == []
