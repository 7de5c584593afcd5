"""Every DNS record of a site, as settings and the table of services imply it."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from components.dns.content import txt
from components.dns.mta_sts import mail_exchangers, policy_id
from components.dns.web_pages import web_hosts
from components.settings.dkim import DkimKey
from components.settings.dns import Dmarc, MailHost, Spf, WebHost, Zone
from components.settings.site import Domain, Site
from components.settings.types import Address, Fqdn, domain_of

AUTOMATIC = 1  # Cloudflare's word for a TTL of its choice
NOT_OFFERED = ("imap", "pop3", "pop3s")  # without TLS from the start, or not at all
LABEL_LENGTH = 40  # of a proof's label in its key; some proofs are one long word

_ALL = {"fail": "-all", "softfail": "~all", "neutral": "?all"}


@dataclass(frozen=True)
class Record:
    """One DNS record, all text canonical (content.py).

    `key` identifies it within its zone. Where a name has one record of a kind, the key is the role, so that a changed content
    is an update in place; where it may have several, the key holds the content, because Cloudflare refuses to update one of them
    to what another still says (81058). `former` is the key of the same record in earlier versions.

    `content` is the record's data in presentation form without the priority of MX and SRV; SRV, CAA and TLSA also carry it in
    parts, as Cloudflare's API wants them.
    """

    zone: Fqdn
    key: str
    name: str
    type: str
    content: str
    priority: int | None = None
    data: tuple[tuple[str, str | int], ...] = ()
    proxied: bool = False
    carries_mail: bool = False  # without it mail is lost or refused: protected
    unit: str | None = None  # key of the record with which this one is replaced: a name has either addresses or a CNAME
    former: str | None = None
    setting: str = ""  # that makes it, for messages


def zones(site: Site) -> dict[Fqdn, Zone]:
    """The zones of a site: those of the settings, and each domain that is in none of them."""
    if site.dns is None:
        return {}
    found = dict(site.dns.zones)
    for domain in sorted([*site.domains, *site.dns.parked], key=lambda name: name.count(".")):
        if zone_of(domain, found) is None:
            found[domain] = Zone()
    return found


def zone_of(name: str, known: Mapping[Fqdn, Zone]) -> Fqdn | None:
    """The closest of the known zones that holds `name`."""
    while name:
        if name in known:
            return name
        name = name.partition(".")[2]
    return None


def records(site: Site) -> tuple[Record, ...]:
    """Every record of the site, in a fixed order. Names outside our zones are not among them."""
    dns = site.dns
    if dns is None:
        return ()
    return _records(site, dns.hosts, dns.web)


def ttl_of(site: Site, record: Record) -> int:
    """Seconds at Cloudflare; AUTOMATIC where it decides, as it does for every proxied record."""
    ttl = site.dns.ttl if site.dns else None
    return AUTOMATIC if record.proxied or ttl is None else ttl


def internal_records(site: Site) -> tuple[Record, ...]:
    """The zones as clients inside are to see them: complete, with internal addresses where there are some.

    Complete because a resolver that answers for a zone answers for all of it: one that lacked the TXT records once
    made the site's own filter fail SPF and DKIM on the site's own mail.
    """
    dns = site.dns
    if dns is None or not (any(host.internal for host in dns.hosts.values()) or (dns.web and dns.web.internal)):
        return ()
    hosts = {name: host.model_copy(update={"addresses": host.internal or host.addresses}) for name, host in dns.hosts.items()}
    web = dns.web
    if web and web.internal:
        web = WebHost(addresses=web.internal)
    return tuple(replace(record, proxied=False) for record in _records(site, hosts, web))


def _records(site: Site, hosts: Mapping[Fqdn, MailHost], web: WebHost | None) -> tuple[Record, ...]:
    known = zones(site)
    found: list[Record] = []

    def add(owner: Fqdn, kind: str, name: str, type_: str, content: str, **more: Any) -> None:
        zone = zone_of(name, known)
        if zone is not None:
            before = prefix(owner, zone)
            more |= {field: f"{before}{more[field]}" for field in ("former", "unit") if more.get(field)}
            more["setting"] = more.get("setting") or _setting(site, owner, kind, type_)
            found.append(Record(zone, f"{before}{kind}", name, type_, content, **more))

    for host, addresses in hosts.items():
        for address in _addresses(addresses.addresses):
            add(
                host,
                address.key,
                host,
                address.type,
                address.content,
                former=address.former,
                carries_mail=True,
                setting=f"dns.hosts.{host}.addresses",
            )
        for digest in addresses.tlsa:
            parts = (("usage", 3), ("selector", 1), ("matching_type", 1), ("certificate", digest))
            add(host, f"tlsa-{digest[:8]}", f"_25._tcp.{host}", "TLSA", f"3 1 1 {digest}", data=parts, setting=f"dns.hosts.{host}.tlsa")
    for host, value in _host_spf(site).items():
        add(host, "spf", host, "TXT", txt(value))
    for name, domain in site.domains.items():
        for kind, owner, type_, content, more in _domain_records(site, name, domain, web):
            add(name, kind, owner, type_, content, **more)
    if site.webmail and site.webmail.host not in hosts:
        for kind, owner, type_, content, more in _web_host(WEBMAIL_HOST, site.webmail.host, web):
            add(owner, kind, owner, type_, content, **more)
    for name in site.dns.parked if site.dns else ():
        # Null MX (RFC 7505), a policy that everyone can apply, and no key that a forger could claim to be missing.
        add(name, "mx-null", name, "MX", ".", priority=0)
        add(name, "spf", name, "TXT", txt("v=spf1 -all"))
        add(name, "dkim-none", f"*._domainkey.{name}", "TXT", txt("v=DKIM1; p="))
    for name, dmarc in dmarc_policies(site).items():
        add(name, "dmarc", f"_dmarc.{name}", "TXT", txt(dmarc_value(dmarc)), carries_mail=name in site.domains)
        for host in dict.fromkeys(
            domain_of(uri) for uri in (*dmarc.aggregate_reports, *dmarc.failure_reports) if uri.startswith("mailto:")
        ):
            # Who is to get reports about another's domain has to say that he wants them (RFC 9990 section 4).
            if zone_of(host, known) != zone_of(name, known):
                add(host, f"reports-of-{name}", f"{name}._report._dmarc.{host}", "TXT", txt("v=DMARC1"))
    return tuple(found)


# The setting of a domain that makes a record, by the first word of its key.
_SETTINGS = {"mx": "mx", "spf": "spf", "tlsrpt": "tls_reports", "mta": "mta_sts", "verification": "verification", "srv": "srv"}
_SETTINGS |= {"caa": "caa", "dmarc": "dmarc", "reports": "dmarc"}


def _setting(site: Site, owner: Fqdn, kind: str, type_: str) -> str:
    if site.dns and owner in site.dns.parked:
        return f"dns.parked.{owner}"
    word = kind.partition("-")[0]
    if type_ in {"A", "AAAA", "CNAME"} and word != "dkim":
        return "dns.web"
    if word == "dkim":
        return f"domains.{owner}.{'dns.dkim_cnames' if type_ == 'CNAME' else 'dkim'}"
    return f"domains.{owner}.dns.{_SETTINGS[word]}"


def dmarc_policies(site: Site) -> dict[Fqdn, Dmarc]:
    """The DMARC policy of each domain that has one; parked ones refuse everything."""
    policies = {name: domain.dns.dmarc for name, domain in site.domains.items() if domain.dns.dmarc}
    for name, parked in (site.dns.parked if site.dns else {}).items():
        policies[name] = Dmarc(
            policy="reject",
            subdomains="reject",
            dkim_alignment="strict",
            spf_alignment="strict",
            aggregate_reports=parked.aggregate_reports,
        )
    return policies


WEBMAIL_HOST = "webmail"  # begins the keys of its records

_Row = tuple[str, str, str, str, dict[str, Any]]


def _domain_records(site: Site, name: Fqdn, domain: Domain, web: WebHost | None) -> Iterator[_Row]:
    """Key, owner, type, content and extras of each record of one mail domain."""
    dns = domain.dns
    for host, preference in mail_exchangers(site, name).items():
        yield f"mx-{host}", name, "MX", host, {"priority": preference, "carries_mail": True}
    yield "spf", name, "TXT", txt(spf_value(dns.spf)), {"carries_mail": True}
    for key in domain.dkim:
        if key.public_key:
            role, owner = f"dkim-{key.selector}-{fingerprint(key)}", f"{key.selector}._domainkey.{name}"
            yield role, owner, "TXT", txt(dkim_value(key)), {"carries_mail": key.stage in {"signing", "retiring"}}
    for selector, target in dns.dkim_cnames.items():
        yield f"dkim-{selector}", f"{selector}._domainkey.{name}", "CNAME", target, {"carries_mail": True}
    if dns.tls_reports:
        yield "tlsrpt", f"_smtp._tls.{name}", "TXT", txt(f"v=TLSRPTv1; rua={','.join(dns.tls_reports)}"), {}
    if dns.mta_sts:
        yield "mta-sts", f"_mta-sts.{name}", "TXT", txt(f"v=STSv1; id={policy_id(site, name)}"), {}
    for label in web_hosts(dns):
        yield from _web_host(label, f"{label}.{name}", web)
    for label, former, code in _labelled(dns.verification):
        yield f"verification-{label}-{_digest(code)}", name, "TXT", txt(code), {"former": f"verification-{former}"}
    yield from _services(site, name, domain)
    for index, caa in enumerate(dns.caa, start=1):
        flags = 128 if caa.critical else 0
        data = (("flags", flags), ("tag", caa.tag), ("value", caa.text))
        key, former = f"caa-{caa.tag}-{_digest(caa.text)}", f"caa-{index}"
        yield key, name, "CAA", f"{flags} {caa.tag} {txt(caa.text)}", {"data": data, "former": former}


def _services(site: Site, name: Fqdn, domain: Domain) -> Iterator[_Row]:
    """Where mail programs find the services, and which of those they may look for there are not."""
    if domain.dns.srv:
        ports = {listener.name: listener.port for listener in site.listeners}
        for service in domain.dns.srv:
            yield _srv(name, service, ports[service], site.host(name))
        for service in NOT_OFFERED:
            yield _srv(name, service, 0, ".")


def _srv(domain: Fqdn, service: str, port: int, target: str) -> _Row:
    """An SRV record; the target `.` says that the domain has no such service (RFC 6186 section 3.4)."""
    weight = 0 if target == "." else 1
    data = (("priority", 0), ("weight", weight), ("port", port), ("target", target))
    return f"srv-{service}", f"_{service}._tcp.{domain}", "SRV", f"{weight} {port} {target}", {"priority": 0, "data": data}


def _host_spf(site: Site) -> dict[Fqdn, str]:
    """SPF of our mail hosts' own names, by which they greet other servers and sign their bounces (RFC 7208 section 2.3)."""
    values: dict[Fqdn, str] = {}
    for name, domain in site.domains.items():
        host = site.host(name)
        if site.dns and host in site.dns.hosts and host not in site.domains and host not in site.dns.parked:
            spf = domain.dns.spf
            values.setdefault(host, " ".join(["v=spf1", "a", *_spf_networks(spf), _ALL[spf.all]]))
    return values


def prefix(owner: Fqdn, zone: Fqdn) -> str:
    """What a key begins with when its owner is not the zone's own name."""
    return "" if owner == zone else f"{owner.removesuffix(f'.{zone}')}:"


def address_key(address: str) -> str:
    return f"{'aaaa' if ':' in address else 'a'}-{address.replace(':', '-')}"


class _AddressRow(NamedTuple):
    key: str
    type: str
    content: str
    former: str


def _addresses(addresses: Iterable[Address]) -> list[_AddressRow]:
    """A row for each address, in an order that does not depend on the settings'."""
    seen = {4: 0, 6: 0}
    rows = {}
    for address in addresses:
        seen[address.version] += 1
        type_ = "A" if address.version == 4 else "AAAA"
        number = f"-{seen[address.version]}" if seen[address.version] > 1 else ""
        content = address.compressed
        rows[address.version, int(address)] = _AddressRow(address_key(content), type_, content, f"{type_.lower()}{number}")
    return [rows[place] for place in sorted(rows)]


def _web_host(role: str, name: str, web: WebHost | None) -> Iterator[_Row]:
    """The records of a host behind the Ingress: a CNAME, or addresses; never both, so they are replaced as a unit."""
    unit = f"{role}-web"
    if web and web.name:
        yield unit, name, "CNAME", web.name, {"proxied": web.proxied, "unit": unit, "former": f"{role}-host"}
    for position, address in enumerate(_addresses(web.addresses) if web else ()):
        more = {"proxied": web.proxied, "unit": unit, "former": f"{role}-{address.former}"} if web else {}
        yield f"{role}-{address.key}" if position else unit, name, address.type, address.content, more


def _labelled(codes: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Each code with a label, which is the name of the service that asked for it, and with its label in earlier versions."""
    seen: dict[str, int] = {}
    for code in codes:
        label = code.replace("=", ":").partition(":")[0]
        seen[label] = seen.get(label, 0) + 1
        yield label[:LABEL_LENGTH], f"{label}-{seen[label]}" if seen[label] > 1 else label, code


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def spf_value(spf: Spf) -> str:
    """`v=spf1 …`; terms without a lookup come first, because receivers stop at the first match."""
    terms = _spf_networks(spf)
    terms += ["mx"] if spf.mx else []
    terms += [f"a:{host}" for host in spf.hosts]
    terms += [f"include:{include}" for include in spf.includes]
    return " ".join(["v=spf1", *terms, _ALL[spf.all]])


def _spf_networks(spf: Spf) -> list[str]:
    return [
        f"ip{network.version}:{network.network_address.compressed if network.num_addresses == 1 else network.compressed}"
        for network in spf.addresses
    ]


def dkim_value(key: DkimKey) -> str:
    """The key's record; one that is revoked says so with an empty `p=` (RFC 6376 section 3.6.1)."""
    if key.stage == "revoked" or key.public_key is None:
        return "v=DKIM1; p="
    return f"v=DKIM1; h=sha256; k={key_type(key)}; p={key.public_key}"


def key_type(key: DkimKey) -> str:
    """`ed25519` keys are 32 raw octets (RFC 8463 section 4); everything longer is RSA in DER."""
    return "ed25519" if len(base64.b64decode(key.public_key or "")) == 32 else "rsa"


def fingerprint(key: DkimKey) -> str:
    """Eight hexadecimal digits of the public key: another key under an old selector is another record, not a new content."""
    return _digest(key.public_key or "")


def dmarc_value(dmarc: Dmarc) -> str:
    """`v=DMARC1; p=…`; tags at their default are left out (RFC 9989 section 4.7)."""
    tags = {
        "p": dmarc.policy,
        "sp": dmarc.subdomains,
        "np": dmarc.nonexistent,
        "adkim": "s" if dmarc.dkim_alignment == "strict" else None,
        "aspf": "s" if dmarc.spf_alignment == "strict" else None,
        "t": "y" if dmarc.testing else None,
        "fo": dmarc.failure_options if dmarc.failure_reports and dmarc.failure_options != "0" else None,
        "rua": ",".join(dmarc.aggregate_reports),
        "ruf": ",".join(dmarc.failure_reports),
    }
    return "; ".join(["v=DMARC1", *(f"{tag}={value}" for tag, value in tags.items() if value)])
