"""The two resources on the firewall, and the component that puts them in order."""

from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi.dynamic import Resource, ResourceProvider

from components.base import Component, Context
from components.edge.agent import agent_digest
from components.edge.desired import haproxy_set, rule_set
from components.edge.provider import HaproxySetProvider, RuleSetProvider
from components.settings.edge import Ssh
from components.settings.site import Site


class _Set(Resource):
    def __init__(
        self, name: str, provider: ResourceProvider, connection: dict[str, str], wanted: dict[str, Any], opts: pulumi.ResourceOptions
    ) -> None:
        super().__init__(provider, name, {"connection": connection, "agent": agent_digest(), "wanted": wanted}, opts)


class HaproxySet(_Set, module="mailserver", name="HaproxySet"):
    """Pools and frontends, in one transaction and one reload."""


class RuleSet(_Set, module="mailserver", name="RuleSet"):
    """Redirects, pass rules and the alias, in one transaction."""


def connection(site: Site, ssh: Ssh) -> dict[str, str]:
    """How the firewall is reached: public parts only."""
    return {
        "host": str(ssh.host or site.edge.address),
        "port": str(ssh.port),
        "user": ssh.user,
        "host_key": ssh.host_key,
        "key_file": ssh.key_file or "",
    }


class Edge(Component):
    """The firewall's part of the way in: HAProxy first, then what leads to it."""

    TYPE = "mailserver:edge:Edge"

    def __init__(self, name: str, context: Context, ssh: Ssh, *, ready: Sequence[pulumi.Resource], legacy: pulumi.Resource | None) -> None:
        """`ready` is what HAProxy sends mail to, `legacy` the LoadBalancer Service while there is one."""
        super().__init__(name, context)
        site = self.site
        there = connection(site, ssh)
        self.haproxy = HaproxySet("haproxy", HaproxySetProvider(), there, dict(haproxy_set(site)), self._options(ready))
        # Going back to the legacy address must work while the new path is broken, so it waits for nothing of it.
        before = [self.haproxy] if site.edge.target == "haproxy" else [legacy] if legacy else []
        self.rules = RuleSet("rules", RuleSetProvider(), there, dict(rule_set(site)), self._options(before))
        self.register_outputs({"target": site.edge.target})

    def _options(self, depends_on: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(depends_on), protect=True if self.site.production else None)
