"""Rules that every rendered Kubernetes object must keep."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.checks.finding import Area, Found
from components.settings.site import Site

_SECRET_LOOKING = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\n[A-Za-z0-9+/=]{16}"),
    "a password hash": re.compile(r"\$(?:2[aby]|5|6|argon2id?|y)\$[^\s'\"]{20}"),
    "a relay's password": re.compile(r"^\[[^\]\s]+\]:\d+\s+[^\s:]+:\S+", re.MULTILINE),
    "a Brevo key": re.compile(r"x(?:smtpsib|keysib)-[0-9a-f]{16}"),
    "a URL with a password": re.compile(r"[a-z]+://[^\s/:@]+:[^\s/@]+@"),
}
_SECRET_NAME = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|API_?KEY", re.IGNORECASE)
_PINNED_TAG = re.compile(r":(?!latest$)[\w.-]+(@sha256:[0-9a-f]{64})?$")


@dataclass(frozen=True)
class Declared:
    """A Kubernetes object as it would reach the API server, and the options that it is registered with."""

    manifest: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"{self.manifest['kind']}/{self.manifest['metadata']['name']}"


@dataclass(frozen=True)
class Rendered:
    """Everything that a site's program declares in its cluster."""

    site: Site
    declared: Sequence[Declared]

    def pods(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Label of the object and the pod's spec, of everything that makes pods."""
        for thing in self.declared:
            spec = thing.manifest.get("spec", {})
            if thing.manifest["kind"] == "CronJob":
                spec = spec["jobTemplate"]["spec"]
            if thing.manifest["kind"] in {"Deployment", "CronJob", "Job", "StatefulSet", "DaemonSet"}:
                yield thing.label, spec["template"]["spec"]

    def containers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """`Kind/name container` and the container, init containers too."""
        for label, pod in self.pods():
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                yield f"{label} {container['name']}", container


AREA = Area[Rendered]("objects", "Kubernetes objects as they would be applied")


@AREA.error("secret-in-config-map", remedy="keep it in a Secret, outside Pulumi")
def secret_in_config_map(rendered: Rendered) -> Found:
    """A ConfigMap holds text that looks like a key, a password or a hash; anyone who can list ConfigMaps would read it."""
    for thing in rendered.declared:
        if thing.manifest["kind"] == "ConfigMap":
            for key, text in thing.manifest.get("data", {}).items():
                yield from (
                    (thing.label, f"{key} holds what looks like {kind}") for kind, look in _SECRET_LOOKING.items() if look.search(text)
                )


@AREA.error("secret-in-environment", remedy="take it from a Secret")
def secret_in_environment(rendered: Rendered) -> Found:
    """An environment variable with a secret's name has its value written out in the pod's spec."""
    for label, container in rendered.containers():
        for variable in container.get("env", []):
            if "value" in variable and _SECRET_NAME.search(variable["name"]):
                yield label, f"{variable['name']} is set in plain text"


@AREA.error("secret-by-subpath", remedy="mount the whole directory")
def secret_by_subpath(rendered: Rendered) -> Found:
    """A Secret mounted by subPath is never updated in a running pod, so a renewed certificate would not be served."""
    for label, pod in rendered.pods():
        secrets = {volume["name"] for volume in pod.get("volumes", []) if "secret" in volume or "projected" in volume}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] in secrets and "subPath" in mount:
                    yield (
                        f"{label} {container['name']}",
                        f"mounts the Secret at {mount['mountPath']} by subPath, so it is never renewed",
                    )


@AREA.error("image-without-tag", remedy="name a version, best with its digest")
def image_without_tag(rendered: Rendered) -> Found:
    """An image without a tag, or with `latest`, is another one after each pull."""
    for label, container in rendered.containers():
        if not _PINNED_TAG.search(container["image"]):
            yield label, f"image {container['image']} has no fixed tag"


@AREA.error("no-memory-limit", remedy="set resources.limits.memory")
def no_memory_limit(rendered: Rendered) -> Found:
    """A container without a memory limit can take the node down with everything else that runs there."""
    for label, container in rendered.containers():
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield label, "has no memory limit"


@AREA.error("privileged", remedy="drop the right")
def privileged(rendered: Rendered) -> Found:
    """A privileged container, or one with NET_ADMIN, can change the node's network."""
    for label, container in rendered.containers():
        rights = container.get("securityContext", {})
        if rights.get("privileged") or "NET_ADMIN" in rights.get("capabilities", {}).get("add", []):
            yield label, "runs privileged or with NET_ADMIN"


@AREA.error("capabilities", remedy="drop ALL and add those that are needed")
def capabilities(rendered: Rendered) -> Found:
    """A container starts with no Linux capability but those that it lists."""
    for label, container in rendered.containers():
        if container.get("securityContext", {}).get("capabilities", {}).get("drop") != ["ALL"]:
            yield label, "does not drop all capabilities"


@AREA.error("unprotected", remedy="set protect and retain_on_delete")
def unprotected(rendered: Rendered) -> Found:
    """A Namespace, claim or volume that an `up` or a `destroy` could delete, with all mail in it."""
    for thing in rendered.declared:
        if thing.manifest["kind"] not in {"Namespace", "PersistentVolume", "PersistentVolumeClaim"}:
            continue
        if not thing.options.get("retainOnDelete"):
            yield thing.label, "is not retained"
        if not thing.options.get("protect") and thing.label not in rendered.site.unprotected:
            yield thing.label, "is not protected"
