"""The agent's protocol: one request, one answer. Imports no Pulumi."""

import base64
import json
import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

from components.edge.agent import agent_program
from components.edge.connection import Connection
from components.edge.differences import THINGS
from components.edge.ssh import TransportError, exchange
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
    for kind in THINGS.keys() & state.keys():
        state[kind] = dict(state[kind] or {})
    for pool in state.get("pools", {}).values():
        pool["servers"] = dict(pool["servers"] or {})
