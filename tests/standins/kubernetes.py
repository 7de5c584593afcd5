"""A stand-in for a cluster: the rules of the API server and its controllers that taking over a system meets, on loopback.

Not the API's own paths: a call is a JSON object with the name of a method below and its arguments, made by kubectl.py and
kubernetes_plugin.py. Defaults are filled in, a Service gets its address, a claim its volume; what the API server calls immutable
is refused; a deleted namespace takes everything with it, and a deleted claim its volume unless that is retained. Every change is
complete when the call returns: nothing rolls out, no pod runs, an ExternalSecret is ready at once.
"""

import copy
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Object = dict[str, Any]

CLUSTER_WIDE = {"Namespace", "PersistentVolume", "PriorityClass", "StorageClass", "Node", "CustomResourceDefinition"}
# Fields that cannot change once they are set.
IMMUTABLE = {
    "Deployment": ("selector",),
    "PersistentVolume": ("csi", "nfs", "hostPath"),
    "PersistentVolumeClaim": ("accessModes", "selector", "storageClassName", "volumeName"),
    "Service": ("clusterIP",),
}
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
CONTAINER = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}
PROBE = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
POD = {"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30}
SPECS: dict[str, Object] = {
    "Deployment": {"progressDeadlineSeconds": 600, "revisionHistoryLimit": 10, "replicas": 1},
    "CronJob": {"concurrencyPolicy": "Allow", "failedJobsHistoryLimit": 1, "successfulJobsHistoryLimit": 3, "suspend": False},
    "PersistentVolumeClaim": {"volumeMode": "Filesystem"},
    "PersistentVolume": {"volumeMode": "Filesystem", "persistentVolumeReclaimPolicy": "Retain"},
    "Service": {"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}
    | {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"},
    "Namespace": {"finalizers": ["kubernetes"]},
}


class RefusalError(Exception):
    """The API server's refusal; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Kubernetes:
    """`objects` by kind, namespace (empty where it has none) and name."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}, "kube-controller-manager")

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def write_kubeconfig(self, file: Path) -> None:
        url = f"http://127.0.0.1:{self._server.server_port}"
        contexts = [{"name": "standin", "context": {"cluster": "standin"}}]
        clusters = [{"name": "standin", "cluster": {"server": url}}]
        file.write_text(json.dumps({"current-context": "standin", "contexts": contexts, "clusters": clusters}))

    def get(self, kind: str, namespace: str, name: str) -> Object:
        key = (kind, "" if kind in CLUSTER_WIDE else namespace, name)
        if key not in self.objects:
            raise RefusalError(404, f'{kind.lower()}s "{name}" not found')
        return self.objects[key]

    def listing(self, kind: str, namespace: str | None) -> list[Object]:
        return [
            thing for (k, n, _), thing in sorted(self.objects.items()) if k == kind and (kind in CLUSTER_WIDE or namespace in {None, n})
        ]

    def create(self, thing: Object, manager: str) -> Object:
        key = self._key(thing)
        if key in self.objects:
            raise RefusalError(409, f'{key[0].lower()}s "{key[2]}" already exists')
        if key[1]:
            self.get("Namespace", "", key[1])
        self._write(key, thing, None, manager)
        return self.objects[key]

    def replace(self, thing: Object, manager: str, dry_run: bool = False) -> Object:
        key = self._key(thing)
        live = self.get(*key)
        before = copy.deepcopy(self.objects)
        try:
            self._write(key, thing, live, manager)
            return self.objects[key]
        finally:
            if dry_run:
                self.objects = before

    def patch(self, kind: str, namespace: str, name: str, patch: Object, manager: str) -> Object:
        """RFC 7386."""
        return self.replace(merged(self.get(kind, namespace, name), patch), manager)

    def delete(self, kind: str, namespace: str, name: str) -> None:
        self.get(kind, namespace, name)
        gone = self.objects.pop((kind, "" if kind in CLUSTER_WIDE else namespace, name))
        if kind == "Namespace":
            for inner in [key for key in self.objects if key[1] == name]:
                self.delete(*inner)
        volume = self.objects.get(("PersistentVolume", "", gone.get("spec", {}).get("volumeName", ""))) if kind.endswith("Claim") else None
        if volume and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            self.delete("PersistentVolume", "", volume["metadata"]["name"])
        elif volume:
            volume["status"] = {"phase": "Released"}

    @staticmethod
    def _key(thing: Object) -> tuple[str, str, str]:
        metadata = thing["metadata"]
        return thing["kind"], "" if thing["kind"] in CLUSTER_WIDE else metadata.get("namespace", "default"), metadata["name"]

    def _write(self, key: tuple[str, str, str], thing: Object, live: Object | None, manager: str) -> None:
        kind = key[0]
        written = copy.deepcopy(thing)
        metadata, spec, old = written["metadata"], written.get("spec"), (live or {}).get("spec", {})
        metadata |= {"uid": live["metadata"]["uid"] if live else str(uuid.uuid4())}
        managers = [] if live is None else [entry["manager"] for entry in live["metadata"]["managedFields"]]
        metadata["managedFields"] = [{"manager": name, "operation": "Update"} for name in dict.fromkeys((*managers, manager))]
        for empty in [name for name in ("labels", "annotations") if metadata.get(name) == {}]:
            del metadata[empty]
        if "stringData" in written:
            written["data"] = written.pop("stringData")
        if spec is not None or kind in SPECS:
            spec = written["spec"] = SPECS.get(kind, {}) | (spec or {})
            for container, template in _containers(kind, spec):
                _default_container(container, template)
        self._fill(kind, written, old)
        for name in IMMUTABLE.get(kind, ()):
            if name in old and old[name] != written["spec"].get(name):
                raise RefusalError(422, f'{kind} "{key[2]}" is invalid: spec.{name}: field is immutable')
        if kind == "PriorityClass" and live and live["value"] != written["value"]:
            raise RefusalError(422, f'PriorityClass "{key[2]}" is invalid: value: Forbidden: may not be changed in an update.')
        if live is not None and "status" in live:
            written.setdefault("status", live["status"])
        metadata["generation"] = 1 if live is None else live["metadata"]["generation"] + (old != written.get("spec", {}))
        self.objects[key] = written
        self._control()

    def _fill(self, kind: str, thing: Object, old: Object) -> None:
        """What the API server itself decides; on an update it keeps what it decided before."""
        metadata, spec = thing["metadata"], thing.get("spec") or {}
        if kind == "Namespace":
            metadata["labels"] = {"kubernetes.io/metadata.name": metadata["name"]} | metadata.get("labels", {})
        if kind == "PersistentVolumeClaim":
            metadata.setdefault("finalizers", ["kubernetes.io/pvc-protection"])
        if kind == "Service":
            number = sum(key[0] == "Service" for key in self.objects) + 10
            spec.setdefault("clusterIP", old.get("clusterIP", f"10.96.0.{number}"))
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
            for port in spec["ports"]:
                port.setdefault("protocol", "TCP")
            taken = {
                port["nodePort"]: other["metadata"]["name"]
                for other in self.listing("Service", None)
                if other["metadata"]["name"] != metadata["name"]
                for port in other["spec"]["ports"]
                if "nodePort" in port
            }
            for port in spec["ports"]:
                if port.get("nodePort") in taken:
                    raise RefusalError(422, f"spec.ports: Invalid value: {port['nodePort']}: provided port is already allocated")
        if kind == "Deployment":
            ready = {"replicas": spec["replicas"], "readyReplicas": spec["replicas"], "updatedReplicas": spec["replicas"]}
            thing["status"] = ready
        if kind == "ExternalSecret":
            thing["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}

    def _control(self) -> None:
        """Claims find their volumes."""
        for claim in self.listing("PersistentVolumeClaim", None):
            namespace, name = claim["metadata"]["namespace"], claim["metadata"]["name"]
            for volume in self.listing("PersistentVolume", None):
                wanted = volume["spec"].get("claimRef", {})
                named = claim["spec"].get("volumeName") == volume["metadata"]["name"]
                if named or (wanted.get("namespace"), wanted.get("name")) == (namespace, name):
                    claim["spec"]["volumeName"] = volume["metadata"]["name"]
                    claim["metadata"].setdefault("annotations", {})["pv.kubernetes.io/bind-completed"] = "yes"
                    volume["spec"]["claimRef"] = {"namespace": namespace, "name": name, "uid": claim["metadata"]["uid"]}
                    claim["status"] = volume["status"] = {"phase": "Bound"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code, answer = 200, None
                with api._lock:
                    try:
                        answer = getattr(api, call.pop("do"))(**call)
                    except RefusalError as refusal:
                        code, answer = refusal.code, str(refusal)
                    text = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def merged(target: Any, patch: Any) -> Any:
    """`target` after a JSON merge patch."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _containers(kind: str, spec: Object) -> Iterator[tuple[Object, str]]:
    """Each container and where it is; its pod gets its defaults."""
    if kind == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if "template" not in spec:
        return
    pod = spec["template"]["spec"]
    for name, value in POD.items():
        pod.setdefault(name, value)
    pod.setdefault("securityContext", {})
    for group in ("initContainers", "containers"):
        for number, container in enumerate(pod.get(group, ())):
            yield container, f"spec.template.spec.{group}[{number}]"


def _default_container(container: Object, place: str) -> None:
    for name, value in CONTAINER.items():
        container.setdefault(name, value)
    container.setdefault("resources", {})
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe := container.get(kind):
            if sum(handler in probe for handler in HANDLERS) > 1:
                raise RefusalError(422, f"{place}.{kind}: Forbidden: may not specify more than 1 handler type")
            for name, value in PROBE.items():
                probe.setdefault(name, value)
