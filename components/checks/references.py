"""Rules between objects: whatever one of them names is declared too, or is listed as made by hand."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.checks.finding import Area, Found
from components.checks.objects import Declared, Rendered
from components.mail.secrets import handmade_secrets

Json = Mapping[str, Any]

AREA = Area[Rendered]("references", "What Kubernetes objects name in each other")


@AREA.error("mount-without-volume", remedy="declare the volume in the pod")
def mount_without_volume(rendered: Rendered) -> Found:
    """A container mounts a volume that its pod does not have; the API server refuses the pod."""
    for label, pod in rendered.pods():
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in _containers(pod):
            for name in _mounted(container) - volumes:
                yield f"{label} {container['name']}", f"mounts the volume {name}, which the pod does not have"


@AREA.error("volume-without-mount", remedy="mount it or remove it")
def volume_without_mount(rendered: Rendered) -> Found:
    """A pod has a volume that none of its containers mounts, which is what is left of a misspelt mount."""
    for label, pod in rendered.pods():
        mounted = {name for container in _containers(pod) for name in _mounted(container)}
        for volume in pod.get("volumes", []):
            if volume["name"] not in mounted:
                yield label, f"no container mounts the volume {volume['name']}"


@AREA.error("config-map", remedy="declare the ConfigMap with this key")
def config_map(rendered: Rendered) -> Found:
    """A pod uses a ConfigMap, or a key of one, that is not declared, and so never starts."""
    known = {name: set(thing.get("data", {})) for name, thing in _named(rendered, "ConfigMap").items()}
    for label, kind, name, keys in _sources(rendered):
        if kind == "ConfigMap":
            yield from _absent(label, kind, name, keys, known)


@AREA.error("secret", remedy="declare it, or list it among those that are made by hand (components/mail/secrets.py)")
def secret(rendered: Rendered) -> Found:
    """A pod uses a Secret, or a key of one, that is neither made by an ExternalSecret nor listed as made by hand."""
    known = {name: set(keys) for name, keys in handmade_secrets(rendered.site).items()}
    for thing in _named(rendered, "ExternalSecret").values():
        target = thing["spec"]["target"]
        keys = target.get("template", {}).get("data") or [entry["secretKey"] for entry in thing["spec"]["data"]]
        known[target["name"]] = set(keys)
    for thing in _named(rendered, "Certificate").values():
        known[thing["spec"]["secretName"]] = {"tls.crt", "tls.key"}
    for label, kind, name, keys in _sources(rendered):
        if kind == "Secret":
            yield from _absent(label, kind, name, keys, known)


@AREA.error("claim", remedy="declare it, or name it in the settings as one that exists")
def claim(rendered: Rendered) -> Found:
    """A pod mounts a claim that is neither declared nor named in the settings as existing, and waits for it forever."""
    declared = _named(rendered, "PersistentVolumeClaim")
    known = declared.keys() | _existing_claims(rendered)
    for label, pod in rendered.pods():
        for volume, name, read_only in _claims(pod):
            if name not in known:
                yield label, f"the claim {name} is not declared"
            elif name in declared and not read_only and not _writable(declared[name]):
                for container in _containers(pod):
                    if any(mount["name"] == volume and not mount.get("readOnly") for mount in container.get("volumeMounts", [])):
                        yield f"{label} {container['name']}", f"writes to the claim {name}, whose access modes are read-only"


@AREA.error("volume-of-claim", remedy="make the two agree")
def volume_of_claim(rendered: Rendered) -> Found:
    """A claim names a volume that is not declared or that differs in class or access modes, so the two are never bound."""
    volumes = _named(rendered, "PersistentVolume")
    for name, thing in _named(rendered, "PersistentVolumeClaim").items():
        if (wanted := thing["spec"].get("volumeName")) is None:
            continue
        if wanted not in volumes:
            yield f"PersistentVolumeClaim/{name}", f"the volume {wanted} is not declared"
            continue
        volume = volumes[wanted]["spec"]
        differing = [field for field in ("storageClassName", "accessModes") if volume.get(field) != thing["spec"].get(field)]
        if volume["capacity"] != thing["spec"]["resources"]["requests"]:
            differing.append("size")
        if differing:
            yield f"PersistentVolumeClaim/{name}", f"differs from the volume {wanted} in {', '.join(differing)}"


@AREA.error("selector", remedy="use the labels of the pod's template")
def selector(rendered: Rendered) -> Found:
    """A Service, NetworkPolicy or workload selects pods by labels that no declared pod has."""
    for thing in rendered.declared:
        kind, spec = thing.manifest["kind"], thing.manifest.get("spec", {})
        labels = spec.get("selector", {}).get("matchLabels", {})
        if kind == "Deployment" and not (labels and labels.items() <= _template(thing)["metadata"]["labels"].items()):
            yield thing.label, "its selector does not match the labels of its own pods"
        if kind in {"Service", "NetworkPolicy"} and not _selected(rendered, _selector(thing.manifest)):
            yield thing.label, "selects no declared pod"


@AREA.error("affinity", remedy="use the labels of the pod that holds the volume")
def affinity(rendered: Rendered) -> Found:
    """A pod must run beside a pod that no workload here has, so it is never scheduled."""
    for thing in _workloads(rendered):
        pods = _template(thing)["spec"].get("affinity", {}).get("podAffinity", {})
        for term in pods.get("requiredDuringSchedulingIgnoredDuringExecution", []):
            wanted = term["labelSelector"].get("matchLabels", {})
            if not _selected(rendered, wanted):
                yield (
                    thing.label,
                    f"must run beside a pod labelled {', '.join(f'{k}={v}' for k, v in wanted.items())}, which does not exist",
                )


@AREA.error("port", remedy="name a port that a container of the pod lists")
def port(rendered: Rendered) -> Found:
    """A Service, NetworkPolicy or probe uses a port that no container of its pods lists."""
    for thing in rendered.declared:
        if thing.manifest["kind"] == "Service":
            wanted: list[Any] = [entry.get("targetPort", entry["port"]) for entry in thing.manifest["spec"]["ports"]]
        elif thing.manifest["kind"] == "NetworkPolicy":
            wanted = _admitted(thing.manifest)
        else:
            continue
        for pod in _selected(rendered, _selector(thing.manifest)):
            yield from ((thing.label, f"port {number} is not open in the pod") for number in wanted if number not in _open(pod))
    for label, pod in rendered.pods():
        for container in _containers(pod):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                action = container.get(probe, {})
                number = (action.get("tcpSocket") or action.get("httpGet") or {}).get("port")
                if number is not None and number not in _open({"containers": [container]}):
                    yield f"{label} {container['name']}", f"{probe} asks at port {number}, which the container does not list"


@AREA.error("not-admitted", remedy="list the port in the NetworkPolicy")
def not_admitted(rendered: Rendered) -> Found:
    """A Service forwards to a port that the NetworkPolicy of its pods does not open."""
    policies = [thing.manifest for thing in rendered.declared if thing.manifest["kind"] == "NetworkPolicy"]
    for thing in rendered.declared:
        if thing.manifest["kind"] != "Service":
            continue
        for policy in policies:
            if _selector(policy).items() <= _selector(thing.manifest).items():
                for entry in thing.manifest["spec"]["ports"]:
                    if entry["targetPort"] not in _admitted(policy):
                        yield thing.label, f"NetworkPolicy/{policy['metadata']['name']} does not open port {entry['targetPort']}"


@AREA.error("backend", remedy="name a declared Service and one of its ports")
def backend(rendered: Rendered) -> Found:
    """An Ingress forwards to a Service, or a port of one, that is not declared."""
    services = _named(rendered, "Service")
    for name, thing in _named(rendered, "Ingress").items():
        for rule in thing["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                wanted = path["backend"]["service"]
                ports = [
                    value for entry in services.get(wanted["name"], {"spec": {"ports": []}})["spec"]["ports"] for value in entry.values()
                ]
                if not set(wanted["port"].values()) <= set(ports):
                    yield f"Ingress/{name}", f"{wanted['name']}:{wanted['port']} is not declared"


@AREA.error("priority-class", remedy="declare the PriorityClass, or name an existing one in mail.priority_class")
def priority_class(rendered: Rendered) -> Found:
    """A pod has a priority class that is neither declared nor named in the settings as existing; the API server refuses it."""
    chosen = rendered.site.mail.priority_class
    existing = {chosen.class_name} if chosen and chosen.value is None else set()
    for label, pod in rendered.pods():
        name = pod.get("priorityClassName")
        if name is not None and name not in _named(rendered, "PriorityClass").keys() | existing:
            yield label, f"the PriorityClass {name} is not declared"


def _named(rendered: Rendered, kind: str) -> dict[str, Json]:
    return {thing.manifest["metadata"]["name"]: thing.manifest for thing in rendered.declared if thing.manifest["kind"] == kind}


def _workloads(rendered: Rendered) -> Iterator[Declared]:
    return (thing for thing in rendered.declared if thing.manifest["kind"] in {"Deployment", "CronJob"})


def _template(thing: Declared) -> Json:
    spec = thing.manifest["spec"]
    return spec["jobTemplate"]["spec"]["template"] if thing.manifest["kind"] == "CronJob" else spec["template"]


def _selector(thing: Json) -> Json:
    return thing["spec"]["podSelector"].get("matchLabels", {}) if thing["kind"] == "NetworkPolicy" else thing["spec"]["selector"]


def _selected(rendered: Rendered, wanted: Json) -> list[Json]:
    """The pods with these labels."""
    templates = map(_template, _workloads(rendered))
    return [template["spec"] for template in templates if wanted.items() <= template["metadata"]["labels"].items()]


def _containers(pod: Json) -> list[Json]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def _mounted(container: Json) -> set[str]:
    return {mount["name"] for mount in container.get("volumeMounts", [])}


def _open(pod: Json) -> set[Any]:
    """Numbers and names of the ports that the pod's containers list."""
    return {
        value
        for container in pod["containers"]
        for entry in container.get("ports", [])
        for value in (entry["containerPort"], entry.get("name"))
    }


def _admitted(policy: Json) -> list[Any]:
    return [entry["port"] for rule in policy["spec"]["ingress"] if rule.get("from") for entry in rule["ports"]]


def _sources(rendered: Rendered) -> Iterator[tuple[str, str, str, Sequence[str]]]:
    """Label, kind, name and keys of every ConfigMap and Secret that a pod uses."""
    for label, pod in rendered.pods():
        for volume in pod.get("volumes", []):
            if source := volume.get("configMap"):
                yield label, "ConfigMap", source["name"], [item["key"] for item in source.get("items", [])]
            if source := volume.get("secret"):
                yield label, "Secret", source["secretName"], [item["key"] for item in source.get("items", [])]
            for part in volume.get("projected", {}).get("sources", []):
                yield label, "Secret", part["secret"]["name"], [item["key"] for item in part["secret"].get("items", [])]
        for container in _containers(pod):
            for variable in container.get("env", []):
                for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                    if source := variable.get("valueFrom", {}).get(field):
                        yield f"{label} {container['name']}", kind, source["name"], [source["key"]]


def _absent(label: str, kind: str, name: str, keys: Sequence[str], known: Mapping[str, set[str]]) -> Found:
    if name not in known:
        yield label, f"the {kind} {name} is not declared"
    elif missing := [key for key in keys if key not in known[name]]:
        yield label, f"the {kind} {name} has no key {', '.join(missing)}"


def _claims(pod: Json) -> Iterator[tuple[str, str, bool]]:
    """Volume, claim and whether the pod takes it for reading only."""
    for volume in pod.get("volumes", []):
        if source := volume.get("persistentVolumeClaim"):
            yield volume["name"], source["claimName"], source.get("readOnly", False)


def _writable(claim: Json) -> bool:
    return claim["spec"]["accessModes"] != ["ReadOnlyMany"]


def _existing_claims(rendered: Rendered) -> set[str]:
    """Claims that the settings name and nothing here makes."""
    jobs = rendered.site.jobs
    targets = [backup.target for backup in (jobs.backup, jobs.webmail_backup) if backup]
    return {target.claim for target in targets if target.nfs is None}
