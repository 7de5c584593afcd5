"""Rules that every rendered Kubernetes object must keep; the render and the tests call the same functions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

KubernetesObject = Mapping[str, Any]

_SECRET_LOOKING = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\n[A-Za-z0-9+/=]{16}"),
    "a password hash": re.compile(r"\$(?:2[aby]|5|6|argon2id?|y)\$[^\s'\"]{20}"),
    "a relay's password": re.compile(r"^\[[^\]\s]+\]:\d+\s+[^\s:]+:\S+", re.MULTILINE),
    "a Brevo key": re.compile(r"x(?:smtpsib|keysib)-[0-9a-f]{16}"),
    "a URL with a password": re.compile(r"[a-z]+://[^\s/:@]+:[^\s/@]+@"),
}
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|API_?KEY", re.IGNORECASE)
_PINNED_TAG = re.compile(r":(?!latest$)[\w.-]+(@sha256:[0-9a-f]{64})?$")


def violations(thing: KubernetesObject) -> Iterator[str]:
    """What is wrong with an object, one sentence each; nothing when all is well."""
    label = f"{thing['kind']}/{thing['metadata']['name']}"
    if thing["kind"] == "ConfigMap":
        for key, text in thing.get("data", {}).items():
            yield from (f"{label}: {key} holds what looks like {kind}" for kind, look in _SECRET_LOOKING.items() if look.search(text))
    for pod in _pods(thing):
        yield from (f"{label}: {problem}" for problem in _pod_violations(pod))


def unprotected(kind: str, name: str, options: Mapping[str, Any]) -> Iterator[str]:
    """A Namespace, claim or volume that would leave the cluster together with the program's declaration of it."""
    if kind in {"Namespace", "PersistentVolume", "PersistentVolumeClaim"} and not options.get("retainOnDelete"):
        yield f"{kind}/{name}: must be retained"


def _pods(thing: KubernetesObject) -> Iterator[Mapping[str, Any]]:
    spec = thing.get("spec", {})
    if thing["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if "template" in spec and thing["kind"] in {"Deployment", "CronJob", "Job", "StatefulSet", "DaemonSet"}:
        yield spec["template"]["spec"]


def _pod_violations(pod: Mapping[str, Any]) -> Iterator[str]:
    secret_volumes = {volume["name"] for volume in pod.get("volumes", []) if "secret" in volume}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        name, rights = container["name"], container.get("securityContext", {})
        if not _PINNED_TAG.search(container["image"]):
            yield f"{name}: image {container['image']} has no fixed tag"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{name}: has no memory limit"
        if rights.get("privileged") or "NET_ADMIN" in rights.get("capabilities", {}).get("add", []):
            yield f"{name}: may change the node's network"
        if rights.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{name}: keeps capabilities it was never given a reason for"
        yield from (
            f"{name}: {variable['name']} stands in the open; take it from a Secret"
            for variable in container.get("env", [])
            if "value" in variable and _SECRET_NAME.search(variable["name"])
        )
        yield from (
            f"{name}: mounts {mount['mountPath']} by subPath, which never sees a renewed Secret"
            for mount in container.get("volumeMounts", [])
            if mount["name"] in secret_volumes and "subPath" in mount
        )
