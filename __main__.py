"""The stack: settings to components to exports."""

import pulumi

from components.bans.component import Bans
from components.base import Context, cluster_provider
from components.checks import adoption
from components.checks.finding import run
from components.checks.registry import judge, lines, read_site, refuse
from components.declaring import Declaring
from components.dns.component import Dns
from components.edge.component import Edge
from components.errors import UserError
from components.jobs.component import Jobs
from components.mail.component import MailServer
from components.monitoring.component import Monitoring
from components.settings.site import KEY
from components.webmail.component import Webmail


def main() -> None:
    namespace, name = KEY.split(":")
    text = pulumi.Config(namespace).get(name)
    if text is None:
        raise UserError(f"{KEY}: is required; Pulumi.dev.yaml shows a small example")
    site = read_site(text)
    findings = judge(site)
    refuse(findings)
    with Declaring(site):
        context = Context(site, cluster_provider(site))
        mail = MailServer("mail", context)
        if site.edge.bans:
            Bans("bans", context, site.edge.bans, mail)
        if site.edge.access:
            Edge("edge", context, site.edge.access, ready=[mail.deployment, mail.proxy_service], legacy=mail.legacy_service)
        Jobs("jobs", context, mail)
        if site.webmail:
            Webmail("webmail", context, site.webmail, mail)
        dns = Dns("dns", context, mail.namespace) if site.dns else None
        if site.monitoring:
            Monitoring("monitoring", context, mail, site.monitoring)
        refuse(run([adoption.AREA], adoption.Adoption(site, context.declared)))

    for level, line in lines(findings):
        (pulumi.log.warn if level == "warning" else pulumi.log.info)(line)
    pulumi.export("mailHost", mail.host)
    pulumi.export("inClusterHost", mail.in_cluster_host)
    pulumi.export("nodePorts", mail.node_ports)
    pulumi.export("services", mail.service_names)
    pulumi.export("claim", mail.claim_name)
    pulumi.export("secrets", mail.secret_names)
    pulumi.export("policyIds", dns.policy_ids if dns else {})


try:
    main()
except UserError as error:
    raise pulumi.RunError(str(error)) from error
