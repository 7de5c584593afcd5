"""What taking over changes in an object that runs: a table in the words of the runbook, today against afterwards; and what it must not."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table

from components.mail.storage import MOUNTS
from tools.plan import Step

KubernetesObject = Mapping[str, Any]


def comparison(imported: Iterable[Step], updated: Iterable[Step]) -> Table | None:
    """A row for each aspect that differs; None where every object stays as it is."""
    taken = {step.urn for step in imported}
    return table_of((step.label, step.old, step.new) for step in sorted(updated, key=lambda step: step.label) if step.urn in taken)


def table_of(objects: Iterable[tuple[str, KubernetesObject, KubernetesObject]]) -> Table | None:
    """The same of objects with their names, each as it is and as it will be."""
    table = Table("object", "what", "today", "afterwards", title="what taking over changes", caption_justify="left")
    seen = set()
    for label, live, wanted in objects:
        for what, today, afterwards in differences(live, wanted):
            table.add_row(label, what, today, afterwards)
            seen.add(what)
    table.caption = "\n".join(f"{what}: {meaning}" for what, meaning in MEANINGS.items() if what in seen)
    return table if table.row_count else None


def differences(live: KubernetesObject, wanted: KubernetesObject) -> Iterator[tuple[str, str, str]]:
    """Aspect, today's value, the wanted one."""
    for what, look in ASPECTS.items():
        today, afterwards = look(live), look(wanted)
        names = sorted(name for name in today.keys() | afterwards.keys() if today.get(name) != afterwards.get(name))
        if names:
            yield what, _shown(today, names), _shown(afterwards, names)


def moved_mail(imported: Iterable[Step], updated: Iterable[Step]) -> Iterator[str]:
    """A complaint for each object that has mail in one place today and would look for it in another: its mailboxes would be empty."""
    taken = {step.urn for step in imported}
    for step in updated:
        if step.urn in taken:
            yield from mail_elsewhere(step.label, step.old, step.new)


def mail_elsewhere(label: str, live: KubernetesObject, wanted: KubernetesObject) -> Iterator[str]:
    """The same of one object."""
    today, afterwards = (_volumes(thing).get(MOUNTS["data"]) for thing in (live, wanted))
    if today and afterwards and today != afterwards:
        yield (
            f"{label}: the mail is in {today}, and afterwards the pod would look for it in {afterwards}; set mail.storage.claim "
            "to the claim that has it; or delete this workload, copy the mail to the new place, and take the entry out of `adopt`"
        )


def _volumes(thing: KubernetesObject) -> dict[str, str]:
    """`source folder` by mount path; only of what keeps its content."""
    sources = {volume["name"]: _source(volume) for volume in _pod(thing).get("volumes", ())}
    mounts = (mount for container in _pod(thing).get("containers", ()) for mount in container.get("volumeMounts", ()))
    kept = ((mount, sources.get(mount["name"])) for mount in mounts)
    return {mount["mountPath"].rstrip("/"): f"{source} /{mount.get('subPath', '')}" for mount, source in kept if source}


def _source(volume: Mapping[str, Any]) -> str:
    if claim := volume.get("persistentVolumeClaim"):
        return f"PersistentVolumeClaim/{claim['claimName']}"
    if export := volume.get("nfs"):
        return f"{export['server']}:{export['path']}"
    return volume.get("hostPath", {}).get("path", "")


def _shown(values: Mapping[str, str], names: list[str]) -> str:
    return "\n".join(": ".join(part for part in (name, values[name]) if part) for name in names if name in values) or "-"


def _pod(thing: KubernetesObject) -> Mapping[str, Any]:
    return _template(thing).get("spec", {})


def _template(thing: KubernetesObject) -> Mapping[str, Any]:
    spec = thing.get("spec", {})
    return spec.get("jobTemplate", {"spec": spec}).get("spec", {}).get("template", {})


def _containers(thing: KubernetesObject) -> dict[str, Mapping[str, Any]]:
    pod = _pod(thing)
    return {container["name"]: container for container in (*pod.get("initContainers", ()), *pod.get("containers", ()))}


def _of_containers(look: Callable[[Mapping[str, Any]], Mapping[str, str]]) -> Callable[[KubernetesObject], dict[str, str]]:
    return lambda thing: {
        f"{name} {what}".strip(): value for name, container in _containers(thing).items() for what, value in look(container).items()
    }


def _probes(container: Mapping[str, Any]) -> dict[str, str]:
    kinds = ("startupProbe", "readinessProbe", "livenessProbe")
    return {kind.removesuffix("Probe"): _handler(container[kind]) for kind in kinds if kind in container}


def _handler(probe: Mapping[str, Any]) -> str:
    for kind in ("tcpSocket", "httpGet", "exec"):
        if kind in probe:
            return f"{kind} {probe[kind].get('port', '')}".strip()
    return "?"


def _rights(container: Mapping[str, Any]) -> dict[str, str]:
    context = container.get("securityContext", {})
    capabilities = context.get("capabilities", {})
    user = context.get("runAsUser", "the image's user")
    return {
        "": f"{user}, may {', '.join(capabilities.get('add') or ['what a container may'])}, drops {capabilities.get('drop') or 'nothing'}"
    }


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    whole = [source.get("configMapRef", source.get("secretRef", {})).get("name") for source in container.get("envFrom", ())]
    return {variable["name"]: "" for variable in container.get("env", ())} | {f"all of {name}": "" for name in whole}


def _ports(thing: KubernetesObject) -> dict[str, str]:
    ports = thing.get("spec", {}).get("ports", ()) if thing.get("kind") == "Service" else ()
    return {f"{port['port']}": f"to {port.get('targetPort', port['port'])}, node {port.get('nodePort', '-')}" for port in ports}


# What the API server fills in where nothing is declared.
FILLED_IN = {
    "dnsPolicy": "ClusterFirst",
    "failedJobsHistoryLimit": 1,
    "internalTrafficPolicy": "Cluster",
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
    "persistentVolumeReclaimPolicy": "Retain",
    "progressDeadlineSeconds": 600,
    "restartPolicy": "Always",
    "revisionHistoryLimit": 10,
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "serviceAccount": "default",
    "serviceAccountName": "default",
    "sessionAffinity": "None",
    "successfulJobsHistoryLimit": 3,
    "suspend": False,
    "terminationGracePeriodSeconds": 30,
    "volumeMode": "Filesystem",
}
SHOWN_APART = {"containers", "initContainers", "volumes", "template", "jobTemplate", "ports", "schedule", "selector"}
KEPT = {"clusterIP", "clusterIPs", "volumeName", "claimRef", "resources", "finalizers", "externalTrafficPolicy"}


def _fields(spec: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a spec that no other row shows, without what the API server adds."""
    shown = {name: value for name, value in spec.items() if name not in SHOWN_APART | KEPT and value != FILLED_IN.get(name)}
    return {name: json.dumps(value, sort_keys=True) for name, value in shown.items()}


# Values of variables are left out: a predecessor may have had a password among them.
ASPECTS: dict[str, Callable[[KubernetesObject], Mapping[str, str]]] = {
    "image": _of_containers(lambda container: {"": container.get("image", "")}),
    "probes": _of_containers(_probes),
    "rights": _of_containers(_rights),
    "memory": _of_containers(lambda container: {"": container.get("resources", {}).get("limits", {}).get("memory", "no limit")}),
    "volumes": _volumes,
    "mounts": _of_containers(lambda container: {"": str(len(container.get("volumeMounts", ())))}),
    "environment": _of_containers(_environment),
    "ports": _ports,
    "schedule": lambda thing: {"": thing["spec"]["schedule"]} if thing.get("kind") == "CronJob" else {},
    "pod": lambda thing: _fields(_pod(thing)),
    "object": lambda thing: _fields(thing.get("spec", {})),
    "labels": lambda thing: thing.get("metadata", {}).get("labels", {}),
    "annotations": lambda thing: thing.get("metadata", {}).get("annotations", {}),
}

MEANINGS = {
    "image": "a newer release of the same major version; its release notes apply",
    "probes": "Kubernetes decides by other checks whether the pod is well: that all listeners are there",
    "rights": "capabilities are listed one by one; NET_ADMIN goes, because Fail2ban is off",
    "memory": "Redis and large messages need it; the node must have it",
    "volumes": "where files come from; the folder behind /var/mail must stay the same",
    "mounts": "one folder with all files instead of a mount for each",
    "environment": "the image is configured by these variables; the predecessor's go",
    "ports": "clients and HAProxy reach the pod by these; the health ports come",
    "schedule": "as in the settings",
    "pod": "how and where the pod runs",
    "object": "how the controller treats it",
    "labels": "policies and Services choose by labels",
    "annotations": "controllers read annotations",
}
