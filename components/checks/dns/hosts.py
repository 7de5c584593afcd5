"""Rules for names and addresses in the DNS settings that records can be made of, and that cannot work."""

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import idna

from components.checks.dns.view import View
from components.checks.finding import Area, Found
from components.dns.mta_sts import mail_exchangers
from components.dns.records import zone_of, zones
from components.dns.web_pages import served

# Networks that the Internet does not route: RFC 1918, RFC 6598, RFC 4193.
PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
# Networks in which no other machine can be reached by its address (IANA's special-purpose registries; documentation is not among them,
# because examples are made of it).
_UNREACHABLE = """0.0.0.0/8 127.0.0.0/8 169.254.0.0/16 192.0.0.0/24 198.18.0.0/15 224.0.0.0/3
    ::/127 ::ffff:0:0/96 64:ff9b::/96 100::/64 fe80::/9 ff00::/8"""
UNREACHABLE = tuple(map(ip_network, _UNREACHABLE.split()))
SPF_WIDEST = {4: 8, 6: 16}  # shortest prefix of a network that one sender could own

# How records of other protocols begin that have a setting of their own.
_PROTOCOLS = {"v=spf1": "spf", "v=dmarc1": "dmarc", "v=stsv1": "mta_sts", "v=tlsrptv1": "tls_reports", "v=dkim1": "dkim or dkim_cnames"}

AREA = Area[View]("hosts", "names and addresses of the DNS settings")


def _addresses(view: View) -> Iterator[tuple[str, IPv4Address | IPv6Address]]:
    """Every address in the settings' records, the public ones and those for clients inside."""
    dns = view.site.dns
    named = {f"dns.hosts.{name}": host for name, host in dns.hosts.items()} if dns else {}
    for setting, host in (named | ({"dns.web": dns.web} if dns and dns.web else {})).items():
        yield from ((f"{setting}.addresses", address) for address in host.addresses)
        yield from ((f"{setting}.internal", address) for address in host.internal)


def _within(address: IPv4Address | IPv6Address, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


@AREA.error("unreachable-address", remedy="write the address that other machines see")
def unreachable_address(view: View) -> Found:
    """A loopback, link-local, multicast, reserved or mapped address, at which no other machine can be reached."""
    for setting, address in _addresses(view):
        if _within(address, UNREACHABLE):
            yield setting, f"{address} reaches no other machine"


@AREA.error("private-address", remedy="write the public address; a private one goes into `internal`", consent=True)
def private_address(view: View) -> Found:
    """A private address in public DNS: mail from the Internet would be sent to some machine in the sender's own network."""
    for setting, address in _addresses(view):
        if setting.endswith(".addresses") and _within(address, PRIVATE):
            yield setting, f"{address} is private"


@AREA.error("unreachable-page", remedy="set it")
def unreachable_page(view: View) -> Found:
    """A host of the policy server without an address: nothing can be fetched from it."""
    dns = view.site.dns
    for host in served(view.site) if dns and dns.web is None else ():
        yield "dns.web", f"is not set, so {host} has no address"


@AREA.error("mx-is-foreign-cname", remedy="use the name that it points to", source="RFC 2181 section 10.3")
def mx_is_foreign_cname(view: View) -> Found:
    """An MX outside our zones that is a CNAME, as the snapshot has it."""
    for domain in view.site.domains:
        for host in mail_exchangers(view.site, domain):
            if not zone_of(host, zones(view.site)) and (target := view.resolver.alias(host)):
                yield f"domains.{domain}.dns.mx", f"{host} is a CNAME of {target}, which an MX must not point to"


@AREA.error("mx-without-own-host", remedy="add it, or acknowledge that mail reaches this server another way", consent=True)
def mx_without_own_host(view: View) -> Found:
    """The MX list does not have the host that this program deploys, so no mail comes here directly."""
    for domain in view.site.domains:
        host = view.site.host(domain)
        if host not in mail_exchangers(view.site, domain):
            yield f"domains.{domain}.dns.mx", f"does not list {host}, the domain's own mail host"


@AREA.error("spf-too-wide", remedy="list your own networks", source="RFC 7208 section 5.6")
def spf_too_wide(view: View) -> Found:
    """A network so large that the record lets a good part of the Internet send as the domain."""
    for domain, settings in view.site.domains.items():
        for network in settings.dns.spf.addresses:
            if network.prefixlen < SPF_WIDEST[network.version]:
                yield f"domains.{domain}.dns.spf.addresses", f"{network} allows {network.num_addresses:.1e} addresses to send as {domain}"


@AREA.error("cname-to-itself", remedy="name another host", source="RFC 1034 section 3.6.2")
def cname_to_itself(view: View) -> Found:
    """A CNAME that points back to its own name."""
    targets = {record.name: record.content for record in view.records if record.type == "CNAME"}
    for name, target in targets.items():
        seen, current = [name], target
        while current in targets and current not in seen:
            seen.append(current)
            current = targets[current]
        if current == name:
            yield f"{name} CNAME", "points back to itself"


@AREA.error("broken-punycode", remedy="convert the name again", source="RFC 5891 section 5.4")
def broken_punycode(view: View) -> Found:
    """A label begins with xn-- and is not the encoding of any name."""
    for setting, name in _names(view):
        for label in name.split("."):
            if label.startswith("xn--") and not _decodes(label):
                yield setting, f"{label} is not valid punycode"


def _names(view: View) -> Iterator[tuple[str, str]]:
    dns = view.site.dns
    yield from ((f"dns.hosts.{name}", name) for name in (dns.hosts if dns else ()))
    yield from ((f"dns.parked.{name}", name) for name in (dns.parked if dns else ()))
    if dns and dns.web and dns.web.name:
        yield "dns.web.name", dns.web.name
    for domain, settings in view.site.domains.items():
        yield f"domains.{domain}", domain
        yield from ((f"domains.{domain}.dns.mx", host) for host in mail_exchangers(view.site, domain))
        yield from ((f"domains.{domain}.dns.spf", name) for name in (*settings.dns.spf.hosts, *settings.dns.spf.includes))
        yield from ((f"domains.{domain}.dns.dkim_cnames", target) for target in settings.dns.dkim_cnames.values())


def _decodes(label: str) -> bool:
    try:
        idna.decode(label)
    except (idna.IDNAError, UnicodeError):
        return False
    return True


@AREA.error("proof-is-record", remedy="use its own setting")
def proof_is_record(view: View) -> Found:
    """A proof of ownership that is a record of another protocol would be a second one of its kind."""
    for domain, settings in view.site.domains.items():
        for proof in settings.dns.verification:
            version = re.split(r"[\s;]", proof.strip().lower(), maxsplit=1)[0]
            if version in _PROTOCOLS:
                yield f"domains.{domain}.dns.verification", f"{proof[:40]!r} is a record of its own kind (dns.{_PROTOCOLS[version]})"


@AREA.error("proof-with-blanks", remedy="remove them")
def proof_with_blanks(view: View) -> Found:
    """A blank at the end of a proof makes it another text, which its service does not find."""
    for domain, settings in view.site.domains.items():
        for proof in settings.dns.verification:
            if proof != proof.strip():
                yield f"domains.{domain}.dns.verification", f"{proof!r} begins or ends with a blank"


@AREA.error("tlsa-without-dnssec", remedy="sign the zone and say so in dnssec, or remove tlsa", source="RFC 7672 section 2.2")
def tlsa_without_dnssec(view: View) -> Found:
    """Senders ignore TLSA records of a zone without DNSSEC."""
    known = zones(view.site)
    for name, host in (view.site.dns.hosts if view.site.dns else {}).items():
        zone = zone_of(name, known)
        if host.tlsa and zone and not known[zone].dnssec:
            yield f"dns.hosts.{name}.tlsa", f"the zone {zone} has no DNSSEC"


@AREA.warning("partial-internal-view", remedy="merge OUT/dns/<zone>.internal.zone into the internal zone, do not load it as the whole zone")
def partial_internal_view(view: View) -> Found:
    """The internal view holds our records only, and the zone has others."""
    dns = view.site.dns
    if dns and (any(host.internal for host in dns.hosts.values()) or (dns.web and dns.web.internal)):
        for zone, settings in zones(view.site).items():
            if settings.other_records and any(record.zone == zone for record in view.records):
                yield f"dns.zones.{zone}.other_records", f"{settings.other_records} records are not in the internal view"
