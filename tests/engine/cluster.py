"""A throwaway cluster, filled as a predecessor leaves it and emptied again: one that the environment names, or else a stand-in."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.settings.site import KEY
from tests.conftest import change, recording_of, settings
from tests.engine.predecessor import CLAIMS, CLASS, MANAGER, MANIFEST_MANAGER, NAMESPACE, objects
from tests.standins.kubernetes import Kubernetes
from tools.offline.stackfile import ROOT

KUBECONFIG = "MAIL_TEST_KUBECONFIG"  # everything of ours in that cluster is deleted before and after the tests
VOLUMES = ("mailserver-data", "roundcubemail-database")  # of stack dev
AS_PRODUCTION = {"cluster/render_to": ..., "production": True, "unprotected": ..., "mail/storage": {"storage_class": CLASS}}
needs_control_plane = pytest.mark.skipif(KUBECONFIG not in os.environ, reason=f"{KUBECONFIG} names no throwaway cluster")


@contextmanager
def throwaway(folder: Path) -> Iterator["Cluster"]:
    """The cluster that the environment names; where it names none, the stand-in, with its kubectl and its provider ahead on PATH."""
    if kubeconfig := os.environ.get(KUBECONFIG):
        yield Cluster(kubeconfig)
        return
    api = Kubernetes()
    api.write_kubeconfig(folder / "kubeconfig")
    for name, module in (("kubectl", "kubectl"), ("pulumi-resource-kubernetes", "kubernetes_plugin")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -P -m tests.standins.{module} "$@"\n')
        script.chmod(0o755)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
            yield Cluster(str(folder / "kubeconfig"))
    finally:
        api.stop()


class Cluster:
    """kubectl on the throwaway cluster."""

    def __init__(self, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig
        self.context = self.kubectl("config", "current-context").strip()
        self.uid = self.get("Namespace", "kube-system")["metadata"]["uid"]
        self._store: subprocess.Popen[str] | None = None

    def kubectl(self, *arguments: str, text: str | None = None, check: bool = True) -> str:
        result = subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig, *arguments], input=text, text=True, capture_output=True, check=False, timeout=120
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json"))

    def until(self, word: str, *query: str) -> None:
        """Returns when a line of `kubectl get --watch` is this word."""
        command = ["kubectl", "--kubeconfig", self.kubeconfig, "get", "--watch", "--request-timeout=300s", *query]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
            assert watch.stdout
            assert any(line.strip() == word for line in watch.stdout)
            watch.terminate()

    def exists(self, reference: str) -> bool:
        return bool(self.kubectl("get", reference, "-n", NAMESPACE, "-o", "name", "--ignore-not-found"))

    def clean(self) -> None:
        """Nothing of ours is left; returns when it is gone."""
        self.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
        # Pods end when their node says so, and a fake node may take its time.
        self.kubectl("delete", "pod", "--all", "-n", NAMESPACE, "--force", "--grace-period=0")
        self.kubectl("wait", "--for=delete", f"namespace/{NAMESPACE}", "--timeout=100s")
        self.kubectl("delete", "persistentvolume", "--all", "--timeout=60s")
        ours = "app.kubernetes.io/part-of=mailserver"
        self.kubectl("delete", "priorityclass", "-l", ours)

    def prepare(self) -> None:
        """What every cluster of the owner has: a storage class that grows, priority classes, nodes, external-secrets, monitoring."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}})
        meta = {"metadata": {"name": CLASS}}
        storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", **meta, "provisioner": "example.com/none"}
        self.apply({**storage, "allowVolumeExpansion": True})
        self.apply({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "tier-3-edge"}, "value": 400_000})
        self.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1", "annotations": {"kwok.x-k8s.io/node": "fake"}}})
        self.resize_node("32Gi")
        names = {"plural": "externalsecrets", "kind": "ExternalSecret", "singular": "externalsecret"}
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema, "subresources": {"status": {}}}
        crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
        spec = {"group": "external-secrets.io", "scope": "Namespaced", "names": names, "versions": [version]}
        self.apply({**crd, "metadata": {"name": "externalsecrets.external-secrets.io"}, "spec": spec})
        self.kubectl("wait", "--for=condition=Established", "crd/externalsecrets.external-secrets.io", "--timeout=60s")

    def resize_node(self, memory: str) -> None:
        capacity = {"cpu": "8", "memory": memory, "pods": "110"}
        status = json.dumps({"status": {"capacity": capacity, "allocatable": capacity}})
        self.kubectl("patch", "node", "node1", "--subresource=status", "--type=merge", "-p", status)

    def apply(self, thing: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", text=json.dumps(thing))

    def seed(self, password: str) -> None:
        """The predecessor's objects, each by the manager and the operation that made it, with its claims bound and grown."""
        for thing in objects(password):
            if thing["kind"] == "ExternalSecret":
                self.kubectl("apply", "--server-side", "--field-manager", MANIFEST_MANAGER, "-f", "-", text=json.dumps(thing))
            else:
                self.kubectl("create", "--field-manager", MANAGER, "-f", "-", text=json.dumps(thing))
        for name, size in CLAIMS.items():
            self.volume(name, size)
        for name in CLAIMS:
            self.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", f"pvc/{name}", "-n", NAMESPACE, "--timeout=60s")
        grown = {"spec": {"resources": {"requests": {"storage": "10Gi"}}}}
        self.kubectl(
            "patch", "pvc", "mailserver-data-encrypted", "-n", NAMESPACE, "--field-manager", "autoresizer", "-p", json.dumps(grown)
        )

    def volume(self, claim: str, size: str) -> None:
        """The volume that a provisioner would make for a claim."""
        spec: dict[str, Any] = {"storageClassName": CLASS, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}}
        spec |= {"hostPath": {"path": f"/tmp/mail-test/{claim}"}, "persistentVolumeReclaimPolicy": "Delete"}
        spec["claimRef"] = {"namespace": NAMESPACE, "name": claim}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"pvc-{claim}"}, "spec": spec})

    def start_secret_store(self) -> None:
        """A stand-in for external-secrets: every ExternalSecret is Ready, as in the stand-in for the cluster it is anyway."""
        if KUBECONFIG not in os.environ:
            return
        command = ["kubectl", "--kubeconfig", self.kubeconfig, "get", "externalsecret", "-A", "--watch"]
        command += ["--output", "custom-columns=NAME:.metadata.name", "--no-headers"]
        self._store = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        assert self._store and self._store.stdout
        ready = json.dumps({"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        for line in self._store.stdout:
            patch = ("patch", "externalsecret", line.strip(), "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", ready)
            self.kubectl(*patch, check=False)

    def stop(self) -> None:
        if self._store:
            self._store.terminate()
            self._store.wait()


def secret_in(place: Path, secret: str) -> list[str]:
    """The files below a folder that hold the secret, as text."""
    command = ["grep", "--recursive", "--files-with-matches", "--text", secret, str(place)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.splitlines()


@dataclass
class Site:
    """Stack prod in a copy of the checkout, on the throwaway cluster, driven by `make`."""

    checkout: Path
    cluster: Cluster
    said: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    stack: str = "prod"

    @property
    def file(self) -> Path:
        return self.checkout / f"Pulumi.{self.stack}.yaml"

    def set(self, changes: dict[str, Any]) -> None:
        """The committed settings of the stack, on this cluster and with these changes; the rest of the file stays."""
        self.settings = settings(self.stack)
        for path, value in ({"cluster/context": self.cluster.context, "cluster/uid": self.cluster.uid} | changes).items():
            change(self.settings, path, value)
        document = YAML().load(self.file)
        document["config"][KEY] = self.settings
        with self.file.open("w") as stream:
            YAML().dump(document, stream)

    def make(self, *words: str, code: int = 0) -> str:
        result = self.run("make", "-o", ".venv/.locked", *words, f"STACK={self.stack}")
        assert result.returncode == (2 if code else 0), result.stdout + result.stderr
        return result.stdout + result.stderr

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            command, cwd=self.checkout, env=self.environment(), capture_output=True, text=True, check=False, timeout=900
        )
        self.said += result.stdout + result.stderr
        return result

    def environment(self) -> dict[str, str]:
        outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return outer | {"KUBECONFIG": self.cluster.kubeconfig}

    def declared(self) -> dict[str, dict[str, Any]]:
        """What the program declares, by Kind/name."""
        objects = recording_of(json.dumps(self.settings), self.stack).kubernetes()
        return {f"{thing['kind']}/{thing['metadata']['name']}": thing for thing in objects}


def named(text: str, word: str) -> set[str]:
    """The names in the summary's line `<n> to <word>: …`."""
    found = re.search(rf"^  \d+ to {re.escape(word)}: (.*)$", text, re.MULTILINE)
    return set(found[1].split(", ")) if found else set()


@contextmanager
def deployed(checkout: Path, folder: Path) -> Iterator[Site]:
    """Stack dev, deployed to the cluster as a site in production."""
    with throwaway(folder) as cluster:
        cluster.clean()
        cluster.prepare()
        for name in VOLUMES:
            cluster.volume(name, "5Gi")
        site = Site(checkout, cluster, stack="dev")
        site.set(AS_PRODUCTION)
        try:
            site.make("up", "YES=1")
            yield site
        finally:
            cluster.clean()
