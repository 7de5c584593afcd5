"""DNS of the site: the policy server and, at Cloudflare, every record."""

import pulumi
import pulumi_kubernetes as k8s

from components.base import Component, Context
from components.dns.mta_sts import policy_id
from components.dns.records import records, zones
from components.dns.web_server import policy_server


class Dns(Component):
    """The records, and the web server without which some of them would be lies."""

    TYPE = "mailserver:dns:Dns"

    def __init__(self, name: str, context: Context, namespace: k8s.core.v1.Namespace, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, context, opts, namespace=namespace)
        known = zones(self.site)
        self.policy_rollout = policy_server(self)
        self.records = []
        if any(zone.cloudflare for zone in known.values()):
            # Here, because the SDK takes more than a second and 100 MiB to import, and sites with another DNS host need none of it.
            from components.dns.cloudflare import declare  # noqa: PLC0415

            self.records = declare(self, known, records(self.site), self.policy_rollout)
        self.policy_ids = {domain: policy_id(self.site, domain) for domain, settings in self.site.domains.items() if settings.dns.mta_sts}
        self.zones = {zone: "cloudflare" if settings.cloudflare else "zone file" for zone, settings in known.items()}
        self.register_outputs({"zones": self.zones, "policyIds": self.policy_ids})
