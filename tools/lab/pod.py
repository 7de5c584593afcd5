"""The mail server's pod as the program renders it: what its containers run, and what Kubernetes mounts into them."""

import functools
from collections.abc import Iterator
from typing import Any

from components.names import MAIL_SERVER
from components.settings.site import KEY, Site
from tools.offline.program import run_main, run_once
from tools.offline.stackfile import Stack

Objects = dict[tuple[str, str], dict[str, Any]]


@functools.cache
def objects(settings: str) -> Objects:
    """Everything that the program registers for these settings, by kind and name."""
    stack = Stack("mailserver", "lab", {KEY: settings}, frozenset())
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in run_once(stack, run_main, preview=False).kubernetes()}


class RenderedPod:
    """Read back from the registered objects, so that a wrong command line or mount fails here as it would in the cluster."""

    def __init__(self, site: Site) -> None:
        by_name = objects(site.model_dump_json())
        spec = by_name["Deployment", MAIL_SERVER]["spec"]["template"]["spec"]
        (init,), (server,) = spec["initContainers"], spec["containers"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = [{mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]} for container in (init, server)]

        self.command: list[str] = init["command"]
        self.environment = {variable["name"]: variable["value"] for variable in server["env"]}
        self.probes = {name: server[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
        self.folders = sorted({path for found in mounts for path in found})
        self.config_maps = {
            path: dict(_files(volume["configMap"], by_name["ConfigMap", volume["configMap"]["name"]]))
            for path, volume in mounts[0].items()
            if "configMap" in volume
        }
        self.secrets = {
            path: (volume["secret"]["secretName"], volume["secret"].get("defaultMode", 0o644))
            for path, volume in mounts[0].items()
            if "secret" in volume
        }
        (self.certificate,) = (path for path, volume in mounts[1].items() if volume.get("secret", {}).get("secretName") == site.tls.secret)


def mounted_texts(settings: str, deployment: str) -> dict[str, str]:
    """What the last container of a Deployment finds in its ConfigMaps: path to text."""
    by_name = objects(settings)
    spec = by_name["Deployment", deployment]["spec"]["template"]["spec"]
    sources = {volume["name"]: volume["configMap"] for volume in spec["volumes"] if "configMap" in volume}
    return {
        f"{mount['mountPath']}/{path}": text
        for mount in spec["containers"][-1]["volumeMounts"]
        if (source := sources.get(mount["name"]))
        for path, text in _files(source, by_name["ConfigMap", source["name"]])
    }


def _files(source: dict[str, Any], config_map: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Path below the mount and text: every key under its own name, or the listed ones under theirs."""
    data = config_map["data"]
    items = source.get("items") or [{"key": key, "path": key} for key in data]
    return ((item["path"], data[item["key"]]) for item in items)
