"""The firewall's part of the inbound path, and a client's look at it after each change."""

import hashlib
import json
from collections.abc import Sequence

import pulumi
import pulumi_command as command

from components.base import Component, Context
from components.edge.connection import Connection
from components.edge.desired import haproxy_set, rule_set
from components.edge.resources import HaproxySet, RuleSet
from components.settings.edge import Ssh


class Edge(Component):
    """HAProxy first, then the redirects and rules that send mail to it.

    Outputs: `target` (haproxy or legacy), `endpoints` (address and port of each HAProxy listener), `pools` (HAProxy backend by service).
    """

    TYPE = "mailserver:edge:Edge"

    def __init__(
        self,
        name: str,
        context: Context,
        ssh: Ssh,
        *,
        ready: Sequence[pulumi.Resource],
        legacy: pulumi.Resource | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """`ready` is what HAProxy sends mail to; `legacy` is the LoadBalancer Service, if there is one."""
        super().__init__(name, context, opts)
        site = self.site
        connection = Connection.of(site, ssh)
        haproxy, rules = haproxy_set(site), rule_set(site)
        self.haproxy = HaproxySet(
            self.named("haproxy"), connection, dict(haproxy), self._options(f"HaproxySet/{self.named('haproxy')}", ready)
        )
        # Rolling back to the legacy address must work while the new path is broken, so it depends on nothing of that path.
        before = [self.haproxy] if site.edge.target == "haproxy" else [legacy] if legacy else []
        self.rules = RuleSet(self.named("rules"), connection, dict(rules), self._options(f"RuleSet/{self.named('rules')}", before))
        if site.edge.check_after_flip:
            # A new digest makes a new command, which runs; a failed one is not kept, so that the next `up` runs it again.
            digest = hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
            self.check = command.local.Command(
                self.named("check"),
                create=f".venv/bin/python -m tools edge-check --stack {pulumi.get_stack()}",
                triggers=[digest],
                opts=pulumi.ResourceOptions(parent=self, depends_on=[self.rules]),
            )
        self.target = site.edge.target
        self.endpoints = {name: frontend["binds"] for name, frontend in haproxy["frontends"].items()}
        self.pools = {listener.name: listener.pool for listener in site.listeners}
        self.register_outputs({"target": self.target, "endpoints": self.endpoints, "pools": self.pools})

    def _options(self, reference: str, depends_on: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(depends_on), protect=self.protected(reference))
