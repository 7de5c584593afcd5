"""Dynamic providers for the two things on the firewall: thin adapters over the client.

Pulumi stores a provider in its state as this module's path and the class name, and nothing else: never rename either. Pulumi does not
see changes in provider code, so the agent's digest is passed as an input. Instances are pickled and hold nothing; `configure` takes the
key from the stack's configuration and keeps it outside of them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from pulumi.dynamic import (
    CheckFailure,
    CheckResult,
    ConfigureRequest,
    CreateResult,
    DiffResult,
    ReadResult,
    ResourceProvider,
    UpdateResult,
)

from components.checks.edge import MOVES, NodePortMove
from components.checks.finding import run
from components.edge.connection import Connection
from components.errors import UserError
from components.settings.edge import SSH_KEY

_keys: dict[str, str | None] = {}


class _EdgeProvider(ResourceProvider):
    kind: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    serialize_as_secret_always = False  # pickled by reference, so nothing in it is secret

    def configure(self, req: ConfigureRequest) -> None:
        _keys["ssh"] = req.config.get(SSH_KEY)

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        return CheckResult(news, [])

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        olds, news = _inputs(_olds), _inputs(_news)
        there, here = (props.get("connection", {}) for props in (olds, news))
        # The same host key at another address is the same machine: a replacement would delete what was just applied to it.
        moved = "host" in there and all(there[part] != here[part] for part in ("host", "host_key"))
        return DiffResult(changes=olds != news, replaces=["connection"] if moved else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        self._apply(props)
        return CreateResult(f"{self.kind}@{props['connection']['host']}", _inputs(props))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        self._apply(_news)
        return UpdateResult(_inputs(_news))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """The firewall's present state in place of what was declared, so that the next diff shows all drift."""
        with _readable(), _firewall(props) as firewall:
            answer = firewall.call("read", self.kind, props["wanted"])
        state = answer["state"]
        if not any(state[part] for part in self.parts):
            return ReadResult("", {})
        live = _inputs(props) | {"wanted": {**props["wanted"], **state}}
        if answer["problem"]:
            live["wanted"]["problem"] = answer["problem"]
        return ReadResult(id_, live, live)

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        with _readable(), _firewall(_props) as firewall:
            firewall.call("delete", self.kind, _props["wanted"])

    def _apply(self, props: dict[str, Any]) -> None:
        with _readable(), _firewall(props) as firewall:
            firewall.call("apply", self.kind, props["wanted"])


class HaproxySetProvider(_EdgeProvider):
    """Pools and frontends of the HAProxy package."""

    kind = "haproxy"
    parts = ("pools", "frontends")

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse, in the preview, to close NodePorts that HAProxy still uses."""
        move = NodePortMove(*(props.get("wanted", {}).get("node_ports", {}) for props in (_olds, news)))
        failures = [CheckFailure("wanted", str(finding)) for finding in run([MOVES], move)]
        return CheckResult(news, failures)


class RuleSetProvider(_EdgeProvider):
    """Redirects with their pass rules, IPv6 pass rules, the alias."""

    kind = "rules"
    parts = ("redirects", "passes")


def _inputs(props: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in props.items() if key in {"connection", "agent", "wanted"}}


@contextmanager
def _firewall(props: Mapping[str, Any]) -> Iterator[Any]:
    # The program itself needs neither the SSH library nor the agent's text, so only this process loads them.
    from components.edge.client import Firewall  # noqa: PLC0415

    yield Firewall(Connection.from_inputs(props["connection"]), _keys.get("ssh"))


@contextmanager
def _readable() -> Iterator[None]:
    """Pulumi prints an exception with its whole chain, so what leaves here is one sentence with no cause attached."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - any other text might contain its arguments
        raise UserError(f"unexpected {type(error).__name__} while talking to the firewall") from None
