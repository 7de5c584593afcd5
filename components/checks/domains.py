"""Rules for the domains: certificate, DKIM, zones. Rules for the records themselves are in dns/."""

from components.checks.finding import Area, Found
from components.settings.dns import DomainRecords
from components.settings.site import Site

AREA = Area[Site]("domains", "mail domains, parked domains and zones")


@AREA.error("primary-missing")
def primary_missing(site: Site) -> Found:
    """With several domains one of them must be named: its host is the server's own name."""
    if site.primary_domain is None and len(site.domains) > 1:  # a map has no first: the engine sorts it
        yield "primary_domain", "is required with several domains", f"choose one of {', '.join(site.domains)}"


@AREA.error("primary-unknown", remedy="name one of the domains")
def primary_unknown(site: Site) -> Found:
    """The primary domain is one of the domains."""
    if site.primary not in site.domains:
        yield "primary_domain", f"{site.primary} is not in domains"


@AREA.error("certificate")
def certificate(site: Site) -> Found:
    """Clients connect to each domain's mail host by name, and refuse a certificate for another name."""
    for name in site.domains:
        if not site.tls.covers(host := site.host(name)):
            yield (
                "tls.names",
                f"no certificate name covers {host}, the mail host of {name}",
                f"add it to the certificate, or set domains.{name}.host to a name that is covered",
            )


@AREA.error("selector-used-twice", remedy="use one selector for each key")
def selector_used_twice(site: Site) -> Found:
    """A DKIM selector names one key."""
    for name, domain in site.domains.items():
        selectors = [key.selector for key in domain.dkim]
        if len(set(selectors)) < len(selectors):
            yield f"domains.{name}.dkim", "a selector is listed twice"


@AREA.warning("unsigned", remedy="add a key under dkim")
def unsigned(site: Site) -> Found:
    """Mail without a DKIM signature is treated as spam by large receivers, and fails DMARC when it is forwarded."""
    for name, domain in site.domains.items():
        if not domain.signing_keys:
            yield f"domains.{name}", "has no DKIM key, so its mail leaves unsigned"


@AREA.error("parked-with-mail", remedy="remove it from one of the two")
def parked_with_mail(site: Site) -> Found:
    """A parked domain has no mail at all."""
    for name in site.dns.parked if site.dns else ():
        if name in site.domains:
            yield f"dns.parked.{name}", "is in domains too"


@AREA.error("parked-mail-host", remedy="remove it from dns.parked")
def parked_mail_host(site: Site) -> Found:
    """A mail host greets other servers and sends its bounces by its own name, which a parked domain forbids."""
    for name in site.dns.parked if site.dns else ():
        if site.dns and name in site.dns.hosts:
            yield f"dns.parked.{name}", "is a mail host too, and its bounces would be refused"


@AREA.error("empty-zone", remedy="remove it, or correct its name")
def empty_zone(site: Site) -> Found:
    """A zone that no domain and no mail host is in is most likely misspelt."""
    names = [*site.domains, *site.dns.parked, *site.dns.hosts] if site.dns else []
    for zone in site.dns.zones if site.dns else ():
        if not any(name == zone or name.endswith(f".{zone}") for name in names):
            yield f"dns.zones.{zone}", "no domain and no mail host is in it"


@AREA.warning("records-unused", remedy="set dns, or remove the block")
def records_unused(site: Site) -> Found:
    """Records are described, but without `dns` nothing publishes them."""
    for name, domain in site.domains.items() if site.dns is None else ():
        if domain.dns != DomainRecords():
            yield f"domains.{name}.dns", "is not published, because dns is not set"
