"""What the program declares, looked at as a whole before the engine hears of any of it."""

import asyncio
import re
from types import TracebackType
from typing import Any, Self

import pulumi
from pulumi._types import input_type_to_dict, is_input_type  # not public: the names that the SDK sends

from components.checks.finding import run
from components.checks.objects import Declared, Rendered
from components.checks.registry import OBJECT_AREAS, Refused
from components.errors import UserError
from components.settings.site import Site


class Declaring:
    """A block of the program whose resources are registered only once it has ended without an error.

    The SDK registers in tasks that start after the program's last line, and starts them also where the program has failed: an
    `up` would make half a mail server of settings that were refused. So each resource waits for the end of this block.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._declared: list[Declared] = []
        self._end: asyncio.Future[list[pulumi.Resource]] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> Self:
        pulumi.runtime.register_stack_transformation(self._see)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            error = self._judged()
        if error is None:
            self._end.set_result([])
            return
        refusal = error
        if isinstance(error, UserError):
            refusal = pulumi.RunError(str(error))
            refusal.__cause__ = error
        self._end.set_exception(refusal)
        # Every resource now fails with the same error, which is printed once; the rest would be asyncio's own complaints.
        self._end.get_loop().set_exception_handler(lambda _loop, _context: None)
        if kind is None:
            raise refusal

    def _judged(self) -> Exception | None:
        try:
            findings = run(OBJECT_AREAS, Rendered(self._site, self._declared))
        except Exception as error:  # noqa: BLE001 - whatever it is, the resources must not wait for an end that never comes
            return error
        return Refused(findings) if findings else None

    def _see(self, args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult:
        if args.type_.startswith("kubernetes:"):
            options = {"protect": args.opts.protect, "retainOnDelete": args.opts.retain_on_delete}
            self._declared.append(Declared(_manifest(args.props), options))
        waiting = pulumi.ResourceOptions(depends_on=self._end)
        return pulumi.ResourceTransformationResult(args.props, pulumi.ResourceOptions.merge(args.opts, waiting))


def _manifest(props: Any) -> dict[str, Any]:
    """Inputs as the API server would get them: the SDK keeps the top level in Python's spelling until it sends them."""
    return {re.sub("_([a-z])", lambda match: match[1].upper(), name): _plain(value) for name, value in props.items() if value is not None}


def _plain(value: Any) -> Any:
    if is_input_type(type(value)):
        value = input_type_to_dict(value)
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
