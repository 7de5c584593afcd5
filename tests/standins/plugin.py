"""What every stand-in for a provider plugin has: how the engine starts it, and how it writes values."""

from concurrent import futures
from typing import Any

import grpc
from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseDict
from pulumi.runtime.proto import provider_pb2_grpc


def struct(values: dict[str, Any]) -> struct_pb2.Struct:
    return ParseDict(values, struct_pb2.Struct())


def serve(provider: provider_pb2_grpc.ResourceProviderServicer) -> None:
    """Serve on a free port, and print it: that is how the engine learns of it. Ends with the process."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()
