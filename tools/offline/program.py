"""Runs the project's own __main__.py without an engine, under Pulumi's mocks, and records what it registers.

Mocks differ from the engine in ways that would falsify a rendering; each is made good or turned into an error here:
names under a parent (URNs), integers that arrive as floats, values that are unknown in a preview, exports, and order.
"""

import asyncio
import logging
import os
import runpy
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pulumi
from google.protobuf.json_format import MessageToDict
from pulumi.runtime import config as runtime_config
from pulumi.runtime import mocks, rpc
from pulumi.runtime import settings as runtime_settings
from pulumi.runtime.stack import run_pulumi_func  # not public: the only way to await everything a program starts

from components.dns.live import TOKEN
from components.errors import UserError
from tools.offline.stackfile import ROOT, SECRET_PLACEHOLDER, Stack

STACK_TYPE = "pulumi:pulumi:Stack"

# Of the options that a resource is registered with, those that decide what the engine does to it.
OPTIONS = (
    "protect",
    "retainOnDelete",
    "importId",
    "ignoreChanges",
    "deleteBeforeReplace",
    "replaceOnChanges",
    "replaceWith",
    "customTimeouts",
    "dependencies",
    "additionalSecretOutputs",
    "aliases",
)


@dataclass(frozen=True)
class Resource:
    """One registered resource. `inputs` are as the provider would get them, with secrets replaced by a placeholder."""

    type: str
    name: str
    urn: str
    parent: str | None
    custom: bool
    options: dict[str, Any]
    inputs: dict[str, Any]
    secret_inputs: tuple[str, ...]


@dataclass
class Recording:
    """What one run of the program registered, exported and said."""

    resources: list[Resource] = field(default_factory=list)
    exports: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)  # of components, by URN
    messages: list[tuple[str, str]] = field(default_factory=list)

    def kubernetes(self) -> list[dict[str, Any]]:
        """The Kubernetes objects, as they would reach the API server."""
        return [resource.inputs for resource in self.resources if resource.type.startswith("kubernetes:") and "kind" in resource.inputs]


def run(stack: Stack, program: Callable[[], None] | None = None) -> Recording:
    """Run the program for a stack, as a preview and as an update, which must register the same.

    Raises UserError for what the program refuses, and for what it must not do.
    """
    try:
        preview, update = (run_once(stack, program or run_main, preview=preview) for preview in (True, False))
    except pulumi.RunError as error:
        raise (error.__cause__ if isinstance(error.__cause__, UserError) else UserError(str(error))) from None
    if preview.resources != update.resources or preview.exports != update.exports:
        raise UserError(f"an unknown value changes what is registered: {_first_difference(preview, update)}")
    return update


def run_main() -> None:
    """The project's own program."""
    runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")


def run_once(stack: Stack, program: Callable[[], None], *, preview: bool) -> Recording:
    """One pass: as a preview, which knows no ids, or as an update."""
    recording = Recording()
    echo = _Echo(preview=preview)
    monitor = _Monitor(stack, recording, echo)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    thread_loops: list[asyncio.AbstractEventLoop] = []

    def give_loop() -> None:  # the mock monitor wants one in each worker thread, and would leave its own open
        thread_loops.append(asyncio.new_event_loop())
        asyncio.set_event_loop(thread_loops[-1])

    executor = ThreadPoolExecutor(initializer=give_loop)
    loop.set_default_executor(executor)
    sys.path.insert(0, str(ROOT))
    logger = logging.Logger("pulumi-program")
    logger.addHandler(_Listener(recording))
    token = os.environ.pop(TOKEN, None)  # no network here, so no look at a live zone
    try:
        runtime_config.set_all_config(dict(stack.config), sorted(stack.secret_keys))
        mocks.set_mocks(echo, project=stack.project, stack=stack.name, preview=preview, logger=logger, monitor=monitor)

        async def entry() -> None:
            program()

        loop.run_until_complete(run_pulumi_func(entry))
        root = runtime_settings.get_root_resource()
        exports = getattr(root, "outputs", {})
        recording.exports = loop.run_until_complete(_resolve(exports))
    finally:
        if token is not None:
            os.environ[TOKEN] = token
        executor.shutdown()
        for used in (loop, *thread_loops):
            used.close()
        sys.path.remove(str(ROOT))
        runtime_settings.reset_options()
    recording.resources.sort(key=lambda resource: resource.urn)
    return recording


async def _resolve(exports: dict[str, Any]) -> dict[str, Any]:
    resolved = {}
    for name, value in sorted(exports.items()):
        output = pulumi.Output.from_input(value)
        if not await output.is_known():
            raise UserError(f"export {name}: is unknown in a preview")
        resolved[name] = SECRET_PLACEHOLDER if await output.is_secret() else await output.future()
    return resolved


def _first_difference(one: Recording, other: Recording) -> str:
    by_urn = {resource.urn: resource for resource in other.resources}
    for resource in one.resources:
        if by_urn.get(resource.urn) != resource:
            return resource.urn
    return next(iter(by_urn.keys() - {resource.urn for resource in one.resources}), "exports")


class _Echo(mocks.Mocks):
    """Answers with what it was asked. An id is the provider's to give, so a preview does not know it."""

    def __init__(self, *, preview: bool) -> None:
        self.preview = preview

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict]:
        return None if self.preview else f"{args.name}-id", args.inputs

    def call(self, args: mocks.MockCallArgs) -> tuple[dict, None]:
        raise UserError(f"{args.token}: asks a provider for data, so the plan would depend on more than the settings")


class _Listener(logging.Handler):
    def __init__(self, recording: Recording) -> None:
        super().__init__(logging.INFO)  # the SDK narrates its own work below that
        self._recording = recording

    def emit(self, record: logging.LogRecord) -> None:
        self._recording.messages.append((record.levelname.lower(), record.getMessage()))


class _Monitor(mocks.MockMonitor):
    """The mock monitor, with the engine's URNs, and with a memory for what it is told."""

    def __init__(self, stack: Stack, recording: Recording, echo: _Echo) -> None:
        super().__init__(echo)
        self._stack = stack
        self._recording = recording
        self._preview = echo.preview
        self._lock = threading.Lock()

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        qualified = parent.split("::")[2] if parent else STACK_TYPE
        prefix = "" if qualified == STACK_TYPE else f"{qualified}$"
        return f"urn:pulumi:{self._stack.name}::{self._stack.project}::{prefix}{type_}::{name}"

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the name of the gRPC method
        response = super().RegisterResource(request)
        if request.type == STACK_TYPE:
            return response
        fields = MessageToDict(request)
        inputs, secret = _plain(fields.get("object", {}), request.name)
        options = {key: fields[key] for key in OPTIONS if fields.get(key)}
        resource = Resource(
            type=request.type,
            name=request.name,
            urn=response.urn,
            parent=None if request.parent.split("::")[2:3] == [STACK_TYPE] else request.parent,
            custom=bool(request.custom),
            options={key: sorted(value) if key == "dependencies" else value for key, value in options.items()},
            inputs=inputs,
            secret_inputs=tuple(sorted(secret)),
        )
        with self._lock:
            if any(known.urn == resource.urn for known in self._recording.resources):
                raise UserError(f"{resource.urn}: two resources have this name")
            self._recording.resources.append(resource)
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802 - the name of the gRPC method
        if request.urn.split("::")[2] != STACK_TYPE and not self._preview:  # the stack's are the exports; a preview does not know all
            outputs, _ = _plain(MessageToDict(request).get("outputs", {}), request.urn)
            with self._lock:
                self._recording.outputs[request.urn] = outputs
        return super().RegisterResourceOutputs(request)


def _plain(inputs: dict[str, Any], resource: str) -> tuple[dict[str, Any], set[str]]:
    """Inputs off the wire: integers again, secrets hidden and their top-level keys named, unknowns refused."""
    secret: set[str] = set()

    def convert(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            if value.get(rpc._special_sig_key) == rpc._special_secret_sig:
                secret.add(key)
                return SECRET_PLACEHOLDER
            return {name: convert(part, key) for name, part in sorted(value.items())}  # the wire keeps no order
        if isinstance(value, list):
            return [convert(part, key) for part in value]
        if value == rpc.UNKNOWN:
            raise UserError(f"{resource}: {key} is unknown in a preview")
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    return {name: convert(value, name) for name, value in sorted(inputs.items())}, secret
