"""The mail server's pod as the program renders it: what its containers run, and what Kubernetes mounts into them."""

from collections.abc import Iterator
from typing import Any

from components.names import MAIL_SERVER
from components.settings.site import KEY, Site
from tools.offline.program import run_main, run_once
from tools.offline.stackfile import Stack


class RenderedPod:
    """Read back from the registered objects, so that a wrong command line or mount fails here as it would in the cluster."""

    def __init__(self, site: Site) -> None:
        stack = Stack("mailserver", "lab", {KEY: site.model_dump_json()}, frozenset())
        objects = run_once(stack, run_main, preview=False).kubernetes()
        by_name = {(thing["kind"], thing["metadata"]["name"]): thing for thing in objects}
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


def _files(source: dict[str, Any], config_map: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Path below the mount and text: every key under its own name, or the listed ones under theirs."""
    data = config_map["data"]
    items = source.get("items") or [{"key": key, "path": key} for key in data]
    return ((item["path"], data[item["key"]]) for item in items)
