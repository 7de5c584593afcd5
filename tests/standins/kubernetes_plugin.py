"""A stand-in for the `kubernetes` provider plugin, on the stand-in for a cluster.

What it copies was read in the provider (4.34: provider.go, diff.go, await.go). An import reads the whole live object as the old
inputs. A diff compares the new inputs with the live state pruned to the shape of the old ones, and some fields force a
replacement. Without server-side apply an update is a three-way merge; with it, fields of other managers stay, entries of lists
are merged by name, and nothing of theirs is removed. Lists are replaced whole here, where the real one has the keys of a
strategic merge: that differs only for entries that someone adds behind our back. It waits for nothing.
"""

# ruff: noqa: N802 - gRPC names its methods

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from tests.standins.plugin import serve, struct

Object = dict[str, Any]
Place = tuple[str | int, ...]

MANAGER = "pulumi-kubernetes"
READ_ONLY = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")
SOURCES = ("csi", "nfs", "hostPath", "local", "iscsi", "rbd", "cephfs", "fc")
# Of the kinds that the program declares; ConfigMaps are mutable, as its provider is configured.
FORCE_NEW: dict[str, tuple[Place, ...]] = {
    "Deployment": (("spec", "selector"),),
    "PersistentVolume": tuple(("spec", source) for source in SOURCES),
    "PersistentVolumeClaim": tuple(("spec", name) for name in ("accessModes", "selector", "storageClassName", "volumeName")),
    "Service": (("spec", "clusterIP"),),
}
NAMES: tuple[Place, ...] = (("metadata", "name"), ("metadata", "namespace"))


class ApiError(Exception):
    pass


def differences(old: Any, new: Any, place: Place = ()) -> Iterator[Place]:
    """Where two values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            if name not in old or name not in new:
                yield (*place, name)
            else:
                yield from differences(old[name], new[name], (*place, name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, (*place, number))
    elif old != new:
        yield place


def pruned(live: Any, shape: Any) -> Any:
    """What is live of the fields that `shape` has."""
    if isinstance(live, dict) and isinstance(shape, dict):
        return {name: pruned(live[name], shape[name]) for name in shape if name in live}
    if isinstance(live, list) and isinstance(shape, list):
        return [pruned(one, other) for one, other in zip(live, shape, strict=False)]
    return live


def three_way(live: Any, old: Any, new: Any) -> Any:
    """`live` with what is new, and without what was old and is new no more."""
    if not isinstance(live, dict) or not isinstance(new, dict):
        return new
    before = old if isinstance(old, dict) else {}
    kept = {name: value for name, value in live.items() if name in new or name not in before}
    return kept | {name: three_way(kept.get(name), before.get(name), value) for name, value in new.items()}


def applied(live: Any, new: Any) -> Any:
    """`live` with what is new; everything else stays."""
    if isinstance(live, dict) and isinstance(new, dict):
        return live | {name: applied(live.get(name), value) for name, value in new.items()}
    if isinstance(live, list) and isinstance(new, list) and all(isinstance(entry, dict) and "name" in entry for entry in (*live, *new)):
        theirs = {entry["name"]: entry for entry in live}
        ours = {entry["name"]: applied(theirs.get(entry["name"]), entry) for entry in new}
        return list((theirs | ours).values())
    return new


def written(place: Place) -> str:
    """A place in the engine's notation: `metadata.labels["a.b/c"]`, `spec.ports[0]`."""
    text = ""
    for part in place:
        plain = isinstance(part, str) and re.fullmatch(r"\w+", part)
        text += f".{part}" if plain else f"[{json.dumps(part)}]"
    return text.removeprefix(".")


def read_place(text: str) -> Place:
    parts = re.findall(r'\["([^"]*)"\]|\[(\d+)\]|([^.\[\]]+)', text)
    return tuple(int(number) if number else quoted or name for quoted, number, name in parts)


def within(place: Place, outer: Place) -> bool:
    return place[: len(outer)] == outer


def value_at(value: Any, place: Place) -> Any:
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def put(value: Any, place: Place, new: Any) -> None:
    for part in place[:-1]:
        value = value.setdefault(part, {})
    if new is None:
        value.pop(place[-1], None)
    else:
        value[place[-1]] = new


def plain(message: struct_pb2.Struct) -> Object:
    """Without nulls, whole numbers as such."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(part) for name, part in value.items() if part is not None}
        if isinstance(value, list):
            return [clean(part) for part in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return clean(MessageToDict(message))


def state(live: Object, inputs: Object) -> struct_pb2.Struct:
    return struct({**live, "__inputs": inputs, "__initialApiVersion": live["apiVersion"], "__fieldManager": MANAGER})


def live_of(properties: struct_pb2.Struct) -> tuple[Object, Object]:
    """The inputs and the live object of a state."""
    found = plain(properties)
    inputs = found.get("__inputs", {})
    return inputs, {name: value for name, value in found.items() if not name.startswith("__")}


def identity(thing: Object) -> Object:
    return {"kind": thing["kind"], "namespace": thing["metadata"].get("namespace", ""), "name": thing["metadata"]["name"]}


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The engine's calls, as far as it makes them for this program."""

    url: str | None = None
    server_side = True

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version="4.34.2")

    def Handshake(self, request, context):
        return provider_pb2.ProviderHandshakeResponse()

    def CheckConfig(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request, context):
        old, new = plain(request.olds), plain(request.news)
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        another = "clusterIdentifier" in changed and "clusterIdentifier" in old and "clusterIdentifier" in new
        kinds = provider_pb2.DiffResponse
        return kinds(
            changes=kinds.DIFF_SOME if changed else kinds.DIFF_NONE, diffs=changed, replaces=["clusterIdentifier"] if another else []
        )

    def Configure(self, request, context):
        settings = plain(request.args)
        self.server_side = str(settings.get("enableServerSideApply", True)).lower() == "true"
        config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
        clusters = {entry["name"]: entry["cluster"]["server"] for entry in config["clusters"]}
        contexts = {entry["name"]: entry["context"]["cluster"] for entry in config["contexts"]}
        self.url = clusters.get(contexts.get(settings.get("context", config["current-context"]), ""))
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True)

    def Check(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request, context):
        old_inputs, live = live_of(request.olds)
        new = plain(request.news)
        ignored = [read_place(text) for text in request.ignoreChanges]
        changed = [
            place
            for place in differences(pruned(live, old_inputs), new)
            if not any(within(place, outer) for outer in ignored) and place[-1] not in READ_ONLY
        ]
        forced = (*NAMES, *FORCE_NEW.get(new["kind"], ()))
        replaces = [place for place in changed if any(within(place, outer) or within(outer, place) for outer in forced)]
        same = identity(new) == identity(live)
        kinds = provider_pb2.DiffResponse
        return kinds(
            changes=kinds.DIFF_SOME if changed else kinds.DIFF_NONE,
            diffs=sorted({str(place[0]) for place in changed}),
            replaces=[written(place) for place in replaces],
            deleteBeforeReplace=bool(replaces) and same,
        )

    def Create(self, request, context):
        inputs = plain(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        live = self._call(context, request.urn, "create", thing=inputs, manager=MANAGER)
        place = identity(live)
        return provider_pb2.CreateResponse(id="/".join(filter(None, (place["namespace"], place["name"]))), properties=state(live, inputs))

    def Read(self, request, context):
        namespace, _, name = request.id.rpartition("/")
        kind = request.urn.split("::")[-2].rpartition(":")[2]
        try:
            live = self._ask("get", kind=kind, namespace=namespace, name=name)
        except ApiError as error:
            return provider_pb2.ReadResponse() if " not found" in str(error) else self._refuse(context, request.urn, error)
        shape = plain(request.inputs)
        inputs = pruned(live, shape) if shape else {name: value for name, value in live.items() if name != "status"}
        inputs["metadata"] = {name: value for name, value in inputs["metadata"].items() if name not in READ_ONLY}
        return provider_pb2.ReadResponse(id=request.id, properties=state(live, inputs), inputs=struct(inputs))

    def Update(self, request, context):
        old_inputs, known = live_of(request.olds)
        inputs = plain(request.news)
        live = self._call(context, request.urn, "get", **identity(known))
        wanted = json.loads(json.dumps(inputs))
        for place in map(read_place, request.ignoreChanges):
            put(wanted, place, value_at(live, place))
        others = {entry["manager"] for entry in live["metadata"]["managedFields"]} - {MANAGER}
        mixed = self.server_side and others
        thing = applied(live, wanted) if mixed else three_way(live, pruned(known, old_inputs), wanted)
        answer = self._call(context, request.urn, "replace", thing=thing, manager=MANAGER, dry_run=request.preview)
        return provider_pb2.UpdateResponse(properties=state(answer, inputs))

    def Delete(self, request, context):
        _, live = live_of(request.properties)
        try:
            self._ask("delete", **identity(live))
        except ApiError as error:
            if " not found" not in str(error):
                return self._refuse(context, request.urn, error)
        return empty_pb2.Empty()

    def Cancel(self, request, context):
        return empty_pb2.Empty()

    def _ask(self, do: str, **arguments: Any) -> Any:
        if self.url is None:
            raise ApiError("configured Kubernetes cluster is unreachable")
        request = urllib.request.Request(self.url, json.dumps({"do": do, **arguments}).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ApiError(json.load(error)) from None
        except urllib.error.URLError as error:
            raise ApiError(f"configured Kubernetes cluster is unreachable: {error.reason}") from None

    def _call(self, context, urn, do, **arguments):
        try:
            return self._ask(do, **arguments)
        except ApiError as error:
            return self._refuse(context, urn, error)

    @staticmethod
    def _refuse(context, urn, error):
        return context.abort(grpc.StatusCode.UNKNOWN, f'resource "{urn}": {error}')


if __name__ == "__main__":
    serve(Provider())
