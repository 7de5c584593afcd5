"""The two resources on the firewall."""

from typing import Any

import pulumi
from pulumi.dynamic import Resource, ResourceProvider

from components.edge.agent import agent_digest
from components.edge.connection import Connection
from components.edge.provider import HaproxySetProvider, RuleSetProvider


class _Set(Resource):
    """`wanted` is what the firewall should hold, in the agent's shapes (components/edge/desired.py)."""

    wanted: pulumi.Output[dict[str, Any]]

    def __init__(
        self, name: str, provider: ResourceProvider, connection: Connection, wanted: dict[str, Any], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__(provider, name, {"connection": connection.inputs, "agent": agent_digest(), "wanted": wanted}, opts)


class HaproxySet(_Set, module="mailserver", name="HaproxySet"):
    """Pools and frontends, in one transaction and one reload."""

    def __init__(self, name: str, connection: Connection, wanted: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(name, HaproxySetProvider(), connection, wanted, opts)


class RuleSet(_Set, module="mailserver", name="RuleSet"):
    """Redirects, pass rules and the alias, in one transaction."""

    def __init__(self, name: str, connection: Connection, wanted: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(name, RuleSetProvider(), connection, wanted, opts)
