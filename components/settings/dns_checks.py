"""Rules between DNS settings and the rest; what records as such must keep is judged in components/dns."""

from collections.abc import Iterator

from components.settings.site import Site


def dns_problems(site: Site) -> Iterator[str]:
    """`setting: what is wrong`, relative to the site."""
    dns = site.dns
    if dns is None:
        return
    names = [*site.domains, *dns.parked, *dns.hosts]
    for name in dns.parked:
        if name in site.domains:
            yield f"dns.parked.{name}: is in domains too; a domain has mail or it has none"
    for zone in dns.zones:
        if not any(name == zone or name.endswith(f".{zone}") for name in names):
            yield f"dns.zones.{zone}: no domain and no mail host lies in it; remove it, or write it as they are written"
