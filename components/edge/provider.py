"""Dynamic providers for the two things on the firewall: thin adapters over the client.

Pulumi keeps a provider in its state as this module's path and the class's name, and nothing else: never rename either. What the
code does is no input, so the agent's digest is one. Instances carry nothing; the key comes by `configure`, from the stack's
configuration, and is kept outside the instance, which is pickled.
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

from components.errors import UserError

SSH_KEY = "mailserver:edgeSshKey"  # config secret with the private key's text

_keys: dict[str, str | None] = {}


class _EdgeProvider(ResourceProvider):
    kind: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]
    serialize_as_secret_always = False  # pickled by reference: there is nothing in it

    def configure(self, req: ConfigureRequest) -> None:
        _keys["ssh"] = req.config.get(SSH_KEY)

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        return CheckResult(news, [])

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        olds, news = _inputs(_olds), _inputs(_news)
        there, here = (props.get("connection", {}) for props in (olds, news))
        # One key under another address is the same machine: replacing it would delete there what was just found to be right.
        moved = "host" in there and all(there[part] != here[part] for part in ("host", "host_key"))
        return DiffResult(changes=olds != news, replaces=["connection"] if moved else [])

    def create(self, props: dict[str, Any]) -> CreateResult:
        self._apply(props)
        return CreateResult(f"{self.kind}@{props['connection']['host']}", _inputs(props))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        self._apply(_news)
        return UpdateResult(_inputs(_news))

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """What the firewall holds now, in place of what was declared, so that the next diff shows every drift."""
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
        """Refuse, in the preview, what would close NodePorts that HAProxy still uses: the Service changes before HAProxy does."""
        before, after = (props.get("wanted", {}).get("node_ports", {}) for props in (_olds, news))
        failures = [
            CheckFailure(
                "wanted",
                f"cluster.node_ports.{service}: HAProxy still uses {', '.join(ports[:2])}, which would close before it uses the new pair; "
                f"add `previous: [{', '.join(ports[:2])}]` for one `up` (a pair changes as a whole)",
            )
            for service, ports in before.items()
            if not set(ports[:2]) <= set(after.get(service, ports))
        ]
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
    from components.edge.ssh import Connection  # noqa: PLC0415

    given = props["connection"]
    connection = Connection(given["host"], int(given["port"]), given["user"], given["host_key"], given.get("key_file") or None)
    yield Firewall(connection, _keys.get("ssh"))


@contextmanager
def _readable() -> Iterator[None]:
    """Pulumi prints the whole chain of an exception: what leaves here is one sentence, with no other behind it."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - any other text might show what it was called with
        raise UserError(f"unexpected {type(error).__name__} while talking to the firewall") from None
