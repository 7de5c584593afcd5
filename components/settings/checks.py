"""Rules between settings: what each value alone cannot know. Every problem names its setting and what would be right."""

from collections.abc import Iterator

from components.settings.dns_checks import dns_problems
from components.settings.edge_checks import edge_problems
from components.settings.job_checks import job_problems
from components.settings.mail import TESTED_IMAGE_MAJORS
from components.settings.quantity import in_bytes
from components.settings.site import Site
from components.settings.types import domain_of, image_tag

# Postfix wants 1.5 times the largest message free before it takes any mail (queue_minfree, postconf(5)): a server
# whose volume was fuller than that refused everything for 15 hours.
QUEUE_HEADROOM = 1.5


def problems(site: Site) -> Iterator[str]:
    """`setting: what is wrong`, relative to the site; nothing when the settings can be deployed."""
    for check in (_nodes, _domains, _mailboxes, _aliases, _send_as, _capacity, _secrets, dns_problems, edge_problems, job_problems):
        yield from check(site)


def _nodes(site: Site) -> Iterator[str]:
    nodes, networks = site.cluster.nodes, site.cluster.pod_networks
    seen: dict[object, str] = {}
    for name, node in nodes.items():
        if (other := seen.setdefault(node.address, name)) != name:
            yield f"cluster.nodes.{name}.address: {node.address} is {other}'s"
        if node.tunnel_address and not any(node.tunnel_address in network for network in networks):
            yield f"cluster.nodes.{name}.tunnel_address: {node.tunnel_address} is in none of cluster.pod_networks"


def _domains(site: Site) -> Iterator[str]:
    if site.primary_domain is None and len(site.domains) > 1:  # a map has no first: the engine sorts it
        yield f"primary_domain: is required with several domains; one of {', '.join(site.domains)}"
    elif site.primary not in site.domains:
        yield f"primary_domain: {site.primary} is not in domains"
    for name, domain in site.domains.items():
        if not site.tls.covers(site.host(name)):
            yield (
                f"tls.names: no certificate name covers {site.host(name)}, the mail host of {name}; "
                f"add it to the certificate, or set domains.{name}.host to a name that is covered"
            )
        selectors = [key.selector for key in domain.dkim]
        if len(set(selectors)) < len(selectors):
            yield f"domains.{name}.dkim: a selector stands twice; one key per selector"
    major = image_tag(site.mail.image).split(".")[0]
    if major not in TESTED_IMAGE_MAJORS:
        yield f"mail.image: {site.mail.image} is not of a tested major version ({', '.join(TESTED_IMAGE_MAJORS)})"


def _mailboxes(site: Site) -> Iterator[str]:
    for address in site.mail.mailboxes:
        if domain_of(address) not in site.domains:
            yield f"mail.mailboxes.{address}: {domain_of(address)} is not in domains"
        if "+" in address:
            yield f"mail.mailboxes.{address}: '+' separates an address from its detail, so such a mailbox gets no mail"


def _aliases(site: Site) -> Iterator[str]:
    mailboxes, aliases = site.mail.mailboxes, site.mail.aliases
    for alias, targets in aliases.items():
        setting = f"mail.aliases.{alias}"
        if domain_of(alias) not in site.domains:
            yield f"{setting}: {domain_of(alias)} is not in domains"
        if not targets:
            yield f"{setting}: has no target"
        if len(set(targets)) < len(targets):
            yield f"{setting}: names a target twice"
        for target in targets:
            if domain_of(target) in site.domains and target not in mailboxes and target not in aliases:
                yield f"{setting}: {target} is neither a mailbox nor an alias; declare it in mail.mailboxes"
        # The image looks a single target up as a substring of the accounts file, so a shorter name counts too.
        if site.mail.quotas and alias in mailboxes and len(targets) == 1 and any(targets[0] in box for box in mailboxes if box != alias):
            yield (
                f"{setting}: with quotas on, an alias between two mailboxes breaks Dovecot's user list; "
                "drop mail.mailboxes.*.quota, or give the alias more targets"
            )


def _send_as(site: Site) -> Iterator[str]:
    for address, mailbox in site.mail.mailboxes.items():
        setting = f"mail.mailboxes.{address}.send_as"
        for granted in mailbox.send_as:
            if domain_of(granted) not in site.domains:
                yield f"{setting}: {granted} is not in one of our domains"
            if granted == address:
                yield f"{setting}: {granted} is the mailbox itself, which needs no grant"
        if len(set(mailbox.send_as)) < len(mailbox.send_as):
            yield f"{setting}: names an address twice"


def _capacity(site: Site) -> Iterator[str]:
    storage, resources = site.mail.storage, site.mail.resources
    free = in_bytes(storage.size) * storage.free_threshold_percent // 100
    needed = int(QUEUE_HEADROOM * in_bytes(site.mail.message_size_limit))
    if free <= needed:
        yield (
            f"mail.storage: {storage.free_threshold_percent} % of {storage.size} is {free >> 20} MiB, but Postfix refuses all mail below "
            f"{needed >> 20} MiB free (1.5 x mail.message_size_limit); raise size or free_threshold_percent"
        )
    if in_bytes(storage.growth_limit) < in_bytes(storage.size):
        yield f"mail.storage.growth_limit: {storage.growth_limit} is below size {storage.size}"
    if in_bytes(resources.memory_limit) < in_bytes(resources.memory_request):
        yield f"mail.resources.memory_limit: {resources.memory_limit} is below memory_request {resources.memory_request}"


def _secrets(site: Site) -> Iterator[str]:
    if site.secret_store is not None and site.cluster.external_secrets is None:
        yield "secret_store: needs external-secrets (cluster.external_secrets), or leave it out and make the Secrets yourself"
    if site.secret_store is None:
        yield from (f"secret_store: is missing, yet {setting} names a source in it" for setting in _sources(site))
    if (probe := site.jobs.probe) and probe.credentials.source and not site.mail.accounts.source:
        yield "jobs.probe.credentials: takes the mailbox's password from the accounts map, so mail.accounts.source must be set too"


def _sources(site: Site) -> Iterator[str]:
    """Every setting that names a place in the secret store."""
    mail, jobs = site.mail, site.jobs
    named = {
        "mail.accounts": mail.accounts.source,
        "mail.stored_aliases": mail.stored_aliases and mail.stored_aliases.source,
        "mail.relay.credentials": mail.relay and mail.relay.credentials.source,
        "jobs.probe.credentials": jobs.probe and jobs.probe.credentials.source,
        "jobs.backup.key": jobs.backup and jobs.backup.key.source,
        "jobs.heartbeats.uptime_kuma": jobs.heartbeats and jobs.heartbeats.uptime_kuma,
        "jobs.heartbeats.urls": jobs.heartbeats and jobs.heartbeats.urls,
        "webmail.database": site.webmail and site.webmail.database.source,
    }
    for name, domain in site.domains.items():
        named |= {f"domains.{name}.dkim.{key.selector}": key.source for key in domain.dkim}
    yield from (setting for setting, source in named.items() if source)
