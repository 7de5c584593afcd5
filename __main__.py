"""The stack: settings to components to exports."""

import pulumi

from components.base import Context, cluster_provider
from components.dns.component import Dns
from components.dns.gate import verified
from components.edge.resources import Edge
from components.errors import UserError
from components.jobs.component import Jobs
from components.mail.component import MailServer
from components.notices import notes, warnings
from components.settings.parse import parse_site
from components.settings.site import KEY


def main() -> None:
    namespace, name = KEY.split(":")
    text = pulumi.Config(namespace).get(name)
    if text is None:
        raise UserError(f"{KEY}: is required; Pulumi.dev.yaml shows a small example")
    site = parse_site(text)
    dns_advice = verified(site)
    context = Context(site, cluster_provider(site))

    mail = MailServer("mail", context)
    if site.edge.ssh:
        Edge("edge", context, site.edge.ssh, ready=[mail.deployment, mail.proxy_service], legacy=mail.legacy_service)
    Jobs("jobs", context, mail)
    if site.dns:
        Dns("dns", context)

    context.check_adoption()
    for note in [*notes(site), *dns_advice.notes]:
        pulumi.log.info(note)
    for warning in [*warnings(site), *dns_advice.warnings]:
        pulumi.log.warn(warning)
    pulumi.export("mailHost", site.hostname)
    pulumi.export("inClusterHost", site.in_cluster_host)
    pulumi.export("nodePorts", {s.name: {"proxy": s.node_port, "health": s.health_node_port} for s in site.listeners})


try:
    main()
except UserError as error:
    raise pulumi.RunError(str(error)) from None
