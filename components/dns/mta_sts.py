"""The MTA-STS policy: its text and its id, both from the one list of mail hosts."""

import hashlib

from components.settings.site import Site
from components.settings.types import Fqdn

POLICY_HOST = "mta-sts"
POLICY_PATH = "/.well-known/mta-sts.txt"  # RFC 8461 section 3.3


def mail_exchangers(site: Site, domain: Fqdn) -> dict[Fqdn, int]:
    """The domain's mail hosts with their preference, the preferred one first, among equals in the order of their names."""
    hosts = site.domains[domain].dns.mx or {site.host(domain): 10}
    return dict(sorted(hosts.items(), key=lambda host: (host[1], host[0])))


def policy_text(site: Site, domain: Fqdn) -> str:
    """The policy file, lines ended by CRLF (RFC 8461 section 3.2; LF is allowed too, but not every reader knows)."""
    mta_sts = site.domains[domain].dns.mta_sts
    if mta_sts is None:
        raise ValueError(f"{domain} has no MTA-STS")
    named = dict.fromkeys([*mail_exchangers(site, domain), *mta_sts.previous_mx])
    hosts = [f"mx: {host}" for host in named]
    return "".join(f"{line}\r\n" for line in ("version: STSv1", f"mode: {mta_sts.mode}", *hosts, f"max_age: {mta_sts.max_age}"))


def policy_id(site: Site, domain: Fqdn) -> str:
    """The id in the record: 20 hexadecimal digits of the policy's hash, so that it changes whenever the policy does."""
    return hashlib.sha256(policy_text(site, domain).encode()).hexdigest()[:20]


def enforced(site: Site, domain: Fqdn) -> bool:
    """Whether senders refuse a mail host that the domain's policy does not name."""
    mta_sts = site.domains[domain].dns.mta_sts if domain in site.domains else None
    return mta_sts is not None and mta_sts.mode == "enforce"
