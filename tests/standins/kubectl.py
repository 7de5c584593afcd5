"""A stand-in for kubectl on the stand-in for a cluster: the commands that our tools, runbooks and tests type, and no more."""

import argparse
import base64
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = (
    *("Namespace", "ConfigMap", "Secret", "ServiceAccount", "Role", "RoleBinding", "PersistentVolume", "PersistentVolumeClaim"),
    *("Service", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "CronJob", "Job", "Ingress", "NetworkPolicy"),
    *("PriorityClass", "StorageClass", "Node", "ExternalSecret", "CustomResourceDefinition", "PodDisruptionBudget"),
)
SHORT = {"pv": "PersistentVolume", "pvc": "PersistentVolumeClaim", "ns": "Namespace", "crd": "CustomResourceDefinition"}
MANAGER = "kubectl"


class FailureError(Exception):
    pass


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="kubectl", allow_abbrev=False)
    found.add_argument("verb")
    found.add_argument("words", nargs="*")
    for names in (
        ("--kubeconfig",),
        ("--context",),
        ("--request-timeout",),
        ("--field-manager",),
        ("--cascade",),
        ("--timeout",),
        ("--container",),
    ):
        found.add_argument(*names)
    for names in (("-n", "--namespace"), ("-f", "--filename"), ("-o", "--output"), ("-l", "--selector"), ("-p", "--patch")):
        found.add_argument(*names)
    for name in ("--type", "--wait", "--grace-period", "--dry-run", "--subresource", "--for"):
        found.add_argument(name)
    found.add_argument("--replicas", type=int)
    found.add_argument("--from-file", action="append", default=[])
    for name in ("--cert", "--key"):
        found.add_argument(name)
    for name in (
        "--ignore-not-found",
        "--no-headers",
        "--server-side",
        "--force",
        "--all",
        "--raw",
        "--flatten",
        "--all-namespaces",
        "--show-managed-fields",
    ):
        found.add_argument(name, action="store_true")
    return found


class Kubectl:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.file = Path(options.kubeconfig or os.environ["KUBECONFIG"])
        self.config = json.loads(self.file.read_text())
        self.namespace = options.namespace or "default"

    def run(self) -> None:
        getattr(self, f"do_{self.options.verb}")()

    def call(self, do: str, **arguments: Any) -> Any:
        context = self.options.context or self.config["current-context"]
        known = {entry["name"]: entry["context"]["cluster"] for entry in self.config["contexts"]}
        if context not in known:
            raise FailureError(f'error: context "{context}" does not exist')
        (url,) = [entry["cluster"]["server"] for entry in self.config["clusters"] if entry["name"] == known[context]]
        request = urllib.request.Request(url, json.dumps({"do": do, **arguments}).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise FailureError(f"Error from server ({error.code}): {json.load(error)}") from None
        except urllib.error.URLError:
            raise FailureError(f"The connection to the server {url} was refused - did you specify the right host or port?") from None

    def do_config(self) -> None:
        word, *names = self.options.words
        if word == "current-context":
            print(self.config["current-context"])
        elif word == "get-contexts":
            print("\n".join(entry["name"] for entry in self.config["contexts"]))
        elif word == "view":
            print(json.dumps(self.config))
        elif word == "rename-context":
            self.file.write_text(self.file.read_text().replace(f'"{names[0]}"', f'"{names[1]}"'))

    def do_get(self) -> None:
        found, single = [], False
        for kind, name in self.references():
            if name is None:
                found += self.call("listing", kind=kind, namespace=None if self.options.all_namespaces else self.namespace)
                continue
            single = len(self.options.words) <= 2
            try:
                found.append(self.call("get", kind=kind, namespace=self.namespace, name=name))
            except FailureError as failure:
                if "(404)" not in str(failure) or not self.options.ignore_not_found:
                    raise
        self.show(found, single)

    def do_create(self) -> None:
        thing = self.spelled_out(*self.options.words) if self.options.words else self.given()
        self.call("create", thing=thing, manager=self.options.field_manager or "kubectl-create")

    def spelled_out(self, what: str, *words: str) -> dict[str, Any]:
        """`create namespace NAME`, `create secret generic NAME --from-file=key=file`, `create secret tls NAME --cert= --key=`."""
        name = words[-1]
        if what == "namespace":
            return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        files = dict(entry.split("=", 1) for entry in self.options.from_file)
        files |= {"tls.crt": self.options.cert, "tls.key": self.options.key} if words[0] == "tls" else {}
        data = {key: base64.b64encode(Path(file).read_bytes()).decode() for key, file in files.items()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": self.namespace}, "data": data}

    def do_apply(self) -> None:
        thing = self.given()
        place = {"kind": thing["kind"], "namespace": thing["metadata"].get("namespace", ""), "name": thing["metadata"]["name"]}
        manager = self.options.field_manager or MANAGER
        try:
            self.call("patch", **place, patch=thing, manager=manager)
        except FailureError as failure:
            if "(404)" not in str(failure):
                raise
            self.call("create", thing=thing, manager=manager)

    def do_replace(self) -> None:
        dry = self.options.dry_run == "server"
        self.show([self.call("replace", thing=self.given(), manager="kubectl-replace", dry_run=dry)], single=True)

    def do_patch(self) -> None:
        patch, manager = json.loads(self.options.patch), self.options.field_manager or "kubectl-patch"
        for kind, name in self.references():
            self.call("patch", kind=kind, namespace=self.namespace, name=name, patch=patch, manager=manager)
            print(f"{kind.lower()}/{name} patched")

    def do_scale(self) -> None:
        self.options.patch = json.dumps({"spec": {"replicas": self.options.replicas}})
        self.do_patch()

    def do_delete(self) -> None:
        for kind, name in self.references():
            things = self.call("listing", kind=kind, namespace=self.namespace) if name is None else []
            label, _, value = (self.options.selector or "=").partition("=")
            chosen = [thing["metadata"]["name"] for thing in things if thing["metadata"].get("labels", {}).get(label, "") == value]
            for each in [name] if name else chosen:
                try:
                    self.call("delete", kind=kind, namespace=self.namespace, name=each)
                except FailureError as failure:
                    if "(404)" not in str(failure) or not self.options.ignore_not_found:
                        raise

    def do_exec(self) -> None:
        raise FailureError("error: no pod runs here")

    def do_wait(self) -> None:
        """Nothing there takes time."""

    def given(self) -> dict[str, Any]:
        return json.load(sys.stdin)

    def references(self) -> Iterator[tuple[str, Any]]:
        """Kind and name; no name where all of a kind are meant."""
        first, *names = self.options.words
        if "/" in first:
            for word in self.options.words:
                kind, _, name = word.partition("/")
                yield self.kind(kind), name
        elif names:
            for name in names:
                yield self.kind(first), name
        else:
            for kind in first.split(","):
                yield self.kind(kind), None

    @staticmethod
    def kind(word: str) -> str:
        name = word.partition(".")[0].lower()
        for kind in KINDS:
            if name in {kind.lower(), f"{kind.lower()}s", f"{kind.lower()}es"}:
                return kind
        if name in SHORT:
            return SHORT[name]
        raise FailureError(f'error: the server doesn\'t have a resource type "{name}"')

    def show(self, things: list[dict[str, Any]], single: bool) -> None:
        how, _, form = (self.options.output or "name").partition("=")
        if how in {"json", "yaml"}:
            for thing in things if not self.options.show_managed_fields else ():
                del thing["metadata"]["managedFields"]
            print(json.dumps(things[0] if single else {"kind": "List", "items": things}))
        elif how == "jsonpath":
            print(",".join(",".join(look(thing, form.strip("{}"))) for thing in things), end="")
        elif how == "custom-columns":
            for thing in things:
                print("   ".join(",".join(look(thing, column.partition(":")[2])) or "<none>" for column in form.split(",")))
        else:
            for thing in things:
                print(f"{thing['kind'].lower()}/{thing['metadata']['name']}")


def look(value: Any, path: str) -> list[str]:
    """The texts at a path such as `.metadata.ownerReferences[*].kind`."""
    found = [value]
    for name in re.findall(r"\.([A-Za-z-]+)(?:\[\*\])?", path):
        found = [each[name] for each in found if isinstance(each, dict) and name in each]
        found = [part for each in found for part in (each if isinstance(each, list) else [each])]
    return [str(each) for each in found]


if __name__ == "__main__":
    try:
        Kubectl(parser().parse_intermixed_args()).run()
    except FailureError as failure:
        sys.exit(str(failure))
