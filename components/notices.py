"""What a preview tells its reader beyond the plan: warnings ask for a decision, notes state what holds."""

from collections.abc import Iterator
from ipaddress import ip_network

from components.edge.notices import edge_notes, edge_warnings
from components.mail.extra import overridden
from components.mail.secrets import handmade_secrets
from components.mail.trust import unknown_tunnels
from components.settings.dns import DomainRecords
from components.settings.job_checks import relay_messages_per_day
from components.settings.site import KEY, Site
from components.settings.types import domain_of, is_pinned


def warnings(site: Site) -> Iterator[str]:
    """One sentence each: setting, consequence, remedy."""
    mail = site.mail
    if site.production and not is_pinned(mail.image):
        yield f"{KEY}.mail.image: {mail.image} is not pinned by digest; whoever can move the tag can read the mail"
    if site.production and site.unprotected:
        yield f"{KEY}.unprotected: the next up or destroy may delete {', '.join(site.unprotected)}; remove what you do not mean to take out"
    if tunnels := unknown_tunnels(site):
        yield (
            f"{KEY}.cluster.nodes: no tunnel_address for {', '.join(tunnels)}, so every pod may reach the PROXY ports and claim any client "
            "address; the runbook shows how to read the addresses"
        )
    yield from _examples(site)
    yield from _jobs(site)
    yield from _shadowed_mailboxes(site)
    yield from _unanswerable_senders(site)
    external = site.external_aliases
    if external and mail.relay:
        yield (
            f"{KEY}.mail.aliases: {', '.join(external)} forwards through {mail.relay.host}, which may refuse senders that are not "
            "its customer's; try one before you rely on it"
        )
    if external and not site.srs:
        yield f"{KEY}.mail.srs: is off, so forwards of {', '.join(external)} fail SPF at their next stop"
    if site.dns is None:
        unpublished = [name for name, domain in site.domains.items() if domain.dns != DomainRecords()]
        yield from (f"{KEY}.domains.{name}.dns: is not published, because dns is not set" for name in unpublished)
    yield from edge_warnings(site)
    if unsigned := [name for name, domain in site.domains.items() if not domain.signing_keys]:
        yield f"{KEY}.domains: no DKIM key for {', '.join(unsigned)}; its mail leaves unsigned"


# For use in documentation only: RFC 5737, RFC 3849, RFC 2606.
_EXAMPLE_NETWORKS = tuple(map(ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")))
_EXAMPLE_DOMAINS = (".example.org", ".example.com", ".example.net")


def _examples(site: Site) -> Iterator[str]:
    """What was copied from an example and never replaced."""
    if not site.production:
        return
    addresses = {f"cluster.nodes.{name}.address": node.address for name, node in site.cluster.nodes.items()}
    addresses |= {"edge.address": site.edge.address, "edge.ipv6_address": site.edge.ipv6_address}
    if site.dns:
        addresses |= {f"dns.hosts.{name}": address for name, host in site.dns.hosts.items() for address in host.addresses}
    found = [
        f"{setting} {address}" for setting, address in addresses.items() if any(address in net for net in _EXAMPLE_NETWORKS if address)
    ]
    found += [f"domains.{name}" for name in site.domains if f".{name}".endswith(_EXAMPLE_DOMAINS)]
    if found:
        yield f"{KEY}: {', '.join(found)}: made for examples, nothing reaches it; put in your own"


def _shadowed_mailboxes(site: Site) -> Iterator[str]:
    """Postfix asks the aliases first, and a catch-all answers for every address that has no alias of its own."""
    aliases = site.mail.aliases
    shadowed = [box for box in site.mail.mailboxes if box not in aliases and box not in aliases.get(f"@{domain_of(box)}", (box,))]
    if shadowed:
        elsewhere = " unless the secret store has an alias for it" if site.mail.stored_aliases else ""
        yield (
            f"{KEY}.mail.aliases: the catch-all takes the mail of {', '.join(shadowed)}{elsewhere}; "
            "alias the mailbox to itself if it should get its own"
        )


def _unanswerable_senders(site: Site) -> Iterator[str]:
    """Sending as an address that takes no mail loses the replies and the bounces."""
    aliases = site.mail.aliases
    for address, mailbox in site.mail.mailboxes.items():
        for granted in mailbox.send_as:
            if granted not in site.mail.mailboxes and granted not in aliases and f"@{domain_of(granted)}" not in aliases:
                yield f"{KEY}.mail.mailboxes.{address}.send_as: nobody gets the replies to {granted}; add an alias for it"


def _jobs(site: Site) -> Iterator[str]:
    jobs = site.jobs
    for name, image in (("python_image", jobs.python_image), ("restic_image", jobs.restic_image)):
        if site.production and not is_pinned(image) and any((jobs.probe, jobs.backup, jobs.webmail_backup, jobs.retention)):
            yield f"{KEY}.jobs.{name}: {image} is not pinned by digest; whoever can move the tag can read the mail"
    if site.production and jobs.backup is None:
        yield f"{KEY}.jobs.backup: is off, so nothing brings lost mail back"
    if jobs.backup and jobs.backup.drill is None:
        yield f"{KEY}.jobs.backup.drill: is off, so nobody knows whether the backup can be restored"


def notes(site: Site) -> Iterator[str]:
    by_hand = ", ".join(f"{name} ({', '.join(keys)})" for name, keys in handmade_secrets(site).items())
    yield f"not made here, so they must be there before the pods start: Secret {by_hand}; docs/settings.md says what is in them"
    if site.cluster.traffic_policy == "Cluster":
        yield (
            "traffic policy Cluster: any node takes mail. A host on the nodes' network can reach the NodePorts through another node "
            "and claim any client address; close them at the firewall for all but the firewall itself, or set Local"
        )
    else:
        yield "traffic policy Local: only the pod's node takes mail, and only from the firewall"
    yield "nothing bans attackers at the edge yet: Fail2ban is off, and CrowdSec's decisions do not reach the firewall"
    yield from edge_notes(site)
    relay = site.mail.relay
    if relay and relay.daily_quota is not None and (taken := relay_messages_per_day(site)):
        yield f"the probe takes {taken} of the {relay.daily_quota} messages a day that {relay.host} allows"
    if relay is None:
        yield "no relay: mail leaves from your own address, which needs port 25 outbound and a matching reverse name"
    yield from (f"{KEY}.{setting}: replaces {own}, which this program sets" for setting, own in overridden(site))
    yield "the Namespace, the claims and the volumes stay in the cluster when they leave the program, and with destroy too"
    if site.cluster.context and not site.cluster.uid:
        yield f"{KEY}.cluster.uid: is not set, so nothing notices when context {site.cluster.context} points to another cluster"
