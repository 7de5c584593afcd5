"""Talks to the agent on the firewall, and says what it found in an administrator's words. Imports no Pulumi."""

import base64
import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from components.edge.agent import agent_program
from components.edge.ssh import Connection, TransportError, exchange
from components.errors import UserError

COMMAND = "/usr/local/bin/php -q"
SENTINEL = b"MAILSERVER-EDGE "

# An apply waits for the mutex (10 s), HAProxy (20 s) or pf (30 s), and may do it all again to go back.
SECONDS = {"read": 45, "plan": 60, "health": 45, "apply": 180, "delete": 180}

Kind = Literal["haproxy", "rules"]
Verb = Literal["read", "plan", "apply", "delete", "health"]

_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class AgentError(UserError):
    """The agent refused or failed; `step` says where, `rolled_back` whether it undid what it had applied."""

    def __init__(self, step: str, message: str, *, rolled_back: bool = False) -> None:
        super().__init__(f"{message} [step {step}{', rolled back' if rolled_back else ''}]")
        self.step = step
        self.rolled_back = rolled_back


def program(verb: str, kind: str, wanted: Mapping[str, Any]) -> bytes:
    """The agent with its request in front: one text, which does nothing before its last line."""
    request = base64.b64encode(json.dumps({"verb": verb, "kind": kind, "wanted": wanted}).encode()).decode()
    return f"<?php $request = '{request}';\n?>{agent_program()}".encode()


class Firewall:
    """One firewall. Calls to it run one at a time, whatever thread they come from."""

    def __init__(self, connection: Connection, private_key: str | None = None) -> None:
        self.connection = connection
        self._private_key = private_key

    def call(self, verb: Verb, kind: Kind, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The agent's answer. Raises AgentError or TransportError."""
        with _locks[f"{self.connection.host}:{self.connection.port}"]:
            output, code = exchange(self.connection, self._private_key, COMMAND, program(verb, kind, wanted), SECONDS[verb])
        return _answer(output, code, self.connection)


def _answer(output: bytes, code: int | None, connection: Connection) -> dict[str, Any]:
    lines = [line for line in output.splitlines() if line.startswith(SENTINEL)]
    if not lines:
        how = "the connection broke" if code is None else f"PHP ended with code {code}"
        said = output.decode("utf-8", "replace").strip()[:300]
        raise TransportError(f"{connection.label}: no answer from the agent: {how}{f'; it said: {said}' if said else ''}")
    try:
        answer = json.loads(lines[-1].removeprefix(SENTINEL))
    except ValueError:
        raise TransportError(f"{connection.label}: the agent's answer is cut off") from None
    if not answer.get("ok"):
        raise AgentError(answer.get("step", "fatal"), answer.get("message", ""), rolled_back=bool(answer.get("rolled_back")))
    for state in (answer.get(part) for part in ("state", "before", "after")):
        if state is not None:
            _maps(state)
    return answer


def _maps(state: dict[str, Any]) -> None:
    """PHP writes an empty map as an empty list."""
    for kind in _THINGS.keys() & state.keys():
        state[kind] = dict(state[kind] or {})
    for pool in state.get("pools", {}).values():
        pool["servers"] = dict(pool["servers"] or {})


_THINGS = {"pools": "pool", "frontends": "frontend", "redirects": "redirect", "passes": "rule", "aliases": "alias"}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each thing and field that changes, `+ ~ -` in front, such as `~ frontend mailserver_proxy_25: bind …`."""
    return [line for kind, thing in _THINGS.items() for line in _differences(thing, before.get(kind) or {}, after.get(kind) or {})]


def _differences(thing: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        label = f"{thing} {name}"
        if name not in after:
            yield f"- {label}"
        elif name not in before:
            fields = ", ".join(
                _words(field, value) for field, value in _bind_first(after[name]) if value not in ("", []) and field != "servers"
            )
            yield f"+ {label}: {fields}"
            yield from _differences(f"{label}: server", {}, after[name].get("servers", {}))
        else:
            for field, value in after[name].items():
                old = before[name].get(field, "")
                if field == "servers":
                    yield from _differences(f"{label}: server", old, value)
                elif old != value:
                    yield f"~ {label}: {_words(field, value) or f'{_word(field)} removed'} (was {_text(old) or 'nothing'})"


def _bind_first(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(fields.items(), key=lambda field: field[0] != "binds")


def _word(field: str) -> str:
    return {"binds": "bind", "local_port": "local port", "pass_rule": "pass rule"}.get(field, field.replace("_", " "))


def _words(field: str, value: Any) -> str:
    return f"{_word(field)} {_text(value)}" if value not in ("", []) else ""


def _text(value: Any) -> str:
    text = " and ".join(value) if isinstance(value, list) else str(value)
    return text.replace("\n", "; ")
