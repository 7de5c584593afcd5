"""Each rule over rendered objects, with an object that breaks it."""

import copy

import pytest

from components.checks.objects import unprotected, violations

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


def deployment(pod):
    return {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": pod}}}


def cron_job(pod):
    return {"kind": "CronJob", "metadata": {"name": "d"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}}


def test_a_pod_that_keeps_every_rule_is_not_complained_of():
    assert list(violations(deployment(POD))) == []


@pytest.mark.parametrize("wrap", [deployment, cron_job])
@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("image", "registry/app", "no fixed tag"),
        ("image", "registry/app:latest", "no fixed tag"),
        ("resources", {}, "no memory limit"),
        ("securityContext", {}, "keeps capabilities"),
        ("securityContext", {"privileged": True, "capabilities": {"drop": ["ALL"]}}, "change the node's network"),
        ("securityContext", {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}, "change the node's network"),
        ("env", [{"name": "IMAP_PASSWORD", "value": "x"}], "stands in the open"),
        ("volumeMounts", [{"name": "tls", "mountPath": "/tls/crt", "subPath": "tls.crt"}], "by subPath"),
    ],
)
def test_a_container_that_breaks_a_rule_is_named(wrap, field, value, complaint):
    pod = copy.deepcopy(POD)
    pod["containers"][0][field] = value
    (found,) = violations(wrap(pod))
    assert complaint in found
    assert found.endswith(complaint) or "c: " in found


def secret_texts():
    yield "-----BEGIN PRIVATE " + "KEY-----\n" + "MIIB" * 8
    yield "me@example.org|{SHA512-CRYPT}$6$" + "salt" * 8
    yield "me@example.org|$2y$" + "06$" + "a" * 30
    yield "[smtp.example.org]:587 login:" + "hunter2"
    yield "key = xsmtpsib-" + "0123456789abcdef" * 2
    yield "postgres://user:" + "hunter2@db/x"


@pytest.mark.parametrize("text", list(secret_texts()))
def test_a_secret_in_a_config_map_is_found(text):
    (found,) = violations({"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"file": text}})
    assert found.startswith("ConfigMap/m: file holds what looks like")


def test_only_a_retained_claim_is_safe():
    assert list(unprotected("PersistentVolumeClaim", "c", {"retainOnDelete": True})) == []
    assert list(unprotected("Namespace", "c", {"protect": True}))
    assert list(unprotected("PersistentVolume", "c", {"protect": True}))
    assert list(unprotected("ConfigMap", "c", {})) == []
