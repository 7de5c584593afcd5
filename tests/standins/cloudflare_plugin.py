"""A stand-in for the `cloudflare` provider plugin: the one resource that the program declares, as the real one treats it.

What it copies was read in the provider (v5.22 behind pulumi-cloudflare 6.23): a changed zone or type is a replacement, created
before it is deleted; everything else is one PUT; 429 and 5xx are tried again; import reads `<zone id>/<record id>`. The real
plugin is used where it is installed.
"""

# ruff: noqa: N802 - gRPC names its methods

import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from tests.standins.plugin import serve, struct

TRIES = 10  # the real one doubles its pause each time and gives up after about three minutes
PAUSE = 0.05  # seconds
INPUTS = {"zoneId": "zone_id", "name": "name", "type": "type", "content": "content", "priority": "priority", "ttl": "ttl"}
INPUTS |= {"proxied": "proxied", "comment": "comment"}
DATA = {"matchingType": "matching_type"}


class ApiError(Exception):
    pass


def call(verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    url = f"{os.environ['CLOUDFLARE_BASE_URL'].rstrip('/')}/zones/{path}"
    headers = {"Authorization": f"Bearer {os.environ.get('CLOUDFLARE_API_TOKEN', '')}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    said = ""
    for _ in range(TRIES):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=verb), timeout=30) as answer:
                return json.load(answer)["result"]
        except urllib.error.HTTPError as error:
            said = f'{verb} "{url}": {error.code} {error.reason} {error.read().decode()}'
            if error.code != 429 and error.code < 500:
                break
        time.sleep(PAUSE)
    raise ApiError(f"failed to make http request: {said}")


def body(inputs: dict[str, Any]) -> dict[str, Any]:
    found = {there: inputs[here] for here, there in INPUTS.items() if here in inputs and here != "zoneId"}
    if "data" in inputs:
        found["data"] = {DATA.get(name, name): value for name, value in inputs["data"].items()}
    return found


def inputs_of(zone_id: str, row: dict[str, Any]) -> dict[str, Any]:
    found = {here: row[there] for here, there in INPUTS.items() if there in row} | {"zoneId": zone_id}
    if row.get("data"):
        names = {there: here for here, there in DATA.items()}
        found["data"] = {names.get(name, name): value for name, value in row["data"].items()}
        found.pop("content", None)
    return found


def plain(message: struct_pb2.Struct) -> dict[str, Any]:
    return {name: value for name, value in MessageToDict(message).items() if not name.startswith("__")}


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The engine's calls, as far as it makes them for a DnsRecord."""

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version="6.23.1")

    def Handshake(self, request, context):
        return provider_pb2.ProviderHandshakeResponse()

    def CheckConfig(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request, context):
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request, context):
        return provider_pb2.ConfigureResponse(supportsPreview=True)

    def Check(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request, context):
        old, new = plain(request.old_inputs), plain(request.news)
        changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name) and name not in request.ignoreChanges)
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=changed,
            replaces=[name for name in changed if name in {"zoneId", "type"}],
        )

    def Create(self, request, context):
        inputs = plain(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        row = self._call(context, "POST", f"{inputs['zoneId']}/dns_records", body(inputs))
        return provider_pb2.CreateResponse(id=row["id"], properties=struct(inputs))

    def Read(self, request, context):
        zone_id, _, record_id = request.id.rpartition("/")
        zone_id = zone_id or plain(request.properties).get("zoneId", "")
        try:
            row = call("GET", f"{zone_id}/dns_records/{record_id}")
        except ApiError as error:
            if "404 " in str(error) and request.HasField("inputs"):
                return provider_pb2.ReadResponse()  # it is gone
            return self._refuse(context, error)
        found = struct(inputs_of(zone_id, row))
        return provider_pb2.ReadResponse(id=record_id, properties=found, inputs=found)

    def Update(self, request, context):
        inputs = plain(request.news)
        if not request.preview:
            self._call(context, "PUT", f"{inputs['zoneId']}/dns_records/{request.id}", body(inputs))
        return provider_pb2.UpdateResponse(properties=struct(inputs))

    def Delete(self, request, context):
        self._call(context, "DELETE", f"{plain(request.properties)['zoneId']}/dns_records/{request.id}")
        return empty_pb2.Empty()

    def Cancel(self, request, context):
        return empty_pb2.Empty()

    def _call(self, context, verb, path, body=None):
        try:
            return call(verb, path, body)
        except ApiError as error:
            return self._refuse(context, error)

    @staticmethod
    def _refuse(context, error):
        return context.abort(grpc.StatusCode.UNKNOWN, str(error))


if __name__ == "__main__":
    serve(Provider())
