"""What DNS says of the site, asked of servers that speak for the Internet, and of the one inside."""

import ipaddress
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import groupby

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.reversename
from cryptography import x509

from components.checks.dns.resolver import read_snapshot
from components.checks.dns.verify import verify
from components.checks.registry import SNAPSHOT
from components.dns.mta_sts import POLICY_HOST, POLICY_PATH, policy_text
from components.dns.records import Record, internal_records, records, zones
from components.dns.zonefile import rdata
from components.listeners import IMAPS
from tools.commands.dns_snapshot import look
from tools.doctor.check import Area, BlindError, Seen, blind, broken, degraded, ok, unused
from tools.doctor.patient import Patient

AREA = Area("dns", "the site's records as others are answered")
SECONDS = 5  # for one question, all tries included
POLICY_BYTES = 64 * 1024  # RFC 8461 section 3.3: no reader has to take more
# Names of authorities in the certificates that they issue, and those by which CAA records know them.
AUTHORITIES = {
    "let's encrypt": {"letsencrypt.org"},
    "google trust services": {"pki.goog"},
    "zerossl": {"sectigo.com"},
    "sectigo": {"sectigo.com"},
    "digicert": {"digicert.com"},
    "buypass": {"buypass.com", "buypass.no"},
}
ONE_OF_A_KIND = ("v=spf1", "v=DMARC1", "v=STSv1", "v=TLSRPTv1")  # two such texts at a name make both void


def resolver(patient: Patient, server: str) -> dns.resolver.Resolver:
    """Asks one server; raises BlindError through `ask` where it is silent."""
    found = dns.resolver.Resolver(configure=False)
    found.nameservers = [server]
    found.port = patient.dns_port
    found.lifetime = SECONDS
    return found


def ask(server: dns.resolver.Resolver, name: str, kind: str) -> set[str]:
    """The data in presentation form, strings of a TXT joined; empty where DNS says that nothing exists."""
    try:
        return {_text(data) for data in server.resolve(name, kind)}
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return set()
    except dns.exception.DNSException as problem:
        raise BlindError(f"{server.nameservers[0]} gives no answer for {name} {kind}: {problem}") from None


def _text(data: dns.rdata.Rdata) -> str:
    strings = getattr(data, "strings", None)
    return b"".join(strings).decode("ascii", "replace") if strings is not None else data.to_text().lower()


def _declared(record: Record) -> str:
    return _text(dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(record.type), rdata(record)))


def _compare(server: dns.resolver.Resolver, where: str, wanted: Iterable[Record]) -> Iterator[Seen]:
    """Each name and type once. A server that is silent at one name is not asked for the next."""
    by_name = groupby(sorted(wanted, key=lambda record: (record.name, record.type)), lambda record: (record.name, record.type))
    agreed = 0
    for (name, kind), group in by_name:
        listed = list(group)
        about = f"{name} {kind}"
        answers = ask(server, name, kind)
        if any(record.proxied for record in listed):  # Cloudflare answers with addresses of its own
            if not answers:
                yield broken(about, f"{where}: no answer, declared and proxied")
            continue
        declared = {_declared(record) for record in listed}
        if missing := declared - answers:
            yield broken(about, f"{where}: missing {_short(missing)}; answered {_short(answers) or 'nothing'}")
        elif foreign := _harmful(kind, answers - declared):
            yield broken(about, f"{where}: also answers {_short(foreign)}, which is not declared")
        else:
            agreed += 1
    yield ok(where, f"{agreed} names answered as declared")


def _harmful(kind: str, foreign: set[str]) -> set[str]:
    """Data beside ours that change what becomes of mail."""
    return {text for text in foreign if kind in {"A", "AAAA", "MX", "CNAME"} or text.startswith(ONE_OF_A_KIND)}


def _short(texts: Iterable[str]) -> str:
    return ", ".join(text if len(text) <= 60 else f"{text[:57]}…" for text in sorted(texts))


@AREA.check(
    "records",
    expects="every declared record is answered as declared",
    remedy="`make preview` shows what the zone lacks, `make up` writes it; answers that differ between servers settle within the old TTL",
    page="dns.md",
)
def public(patient: Patient) -> Iterator[Seen]:
    """Two resolvers for the Internet answer each declared record with its content, and nothing beside it that changes where mail goes."""
    for server in patient.resolvers:
        try:
            if silent := [zone for zone in zones(patient.site) if not ask(resolver(patient, server), zone, "SOA")]:
                yield broken(server, f"knows nothing of {', '.join(silent)}")
                continue
            yield from _compare(resolver(patient, server), server, records(patient.site))
        except BlindError as error:
            yield blind(server, str(error))


@AREA.check(
    "authority",
    expects="the zone's own servers answer as declared",
    remedy="`make preview` shows what the zone lacks; at another provider, compare with the zone file of `make render`",
    page="dns.md",
)
def authority(patient: Patient) -> Iterator[Seen]:
    """The name servers that the Internet is sent to for a zone hold its declared records."""
    first = resolver(patient, patient.resolvers[0])
    for zone in zones(patient.site):
        names = ask(first, zone, "NS")
        addresses = sorted({address for name in names for kind in ("A", "AAAA") for address in ask(first, name, kind)})
        if not addresses:
            yield broken(zone, f"{first.nameservers[0]} knows no name server of it")
            continue
        wanted = [record for record in records(patient.site) if record.zone == zone]
        yield from _compare(resolver(patient, addresses[0]), f"{zone} at {addresses[0]}", wanted)


@AREA.check(
    "inside",
    expects="the internal resolver answers its view",
    remedy="load the zone file that `make render` writes for inside, merged with what others keep there",
    page="dns.md",
)
def inside(patient: Patient) -> Iterator[Seen]:
    """The resolver that clients inside use answers the internal view, TXT records included; a view without them fails SPF and DKIM."""
    server = patient.site.doctor.internal_resolver
    if server is None:
        yield unused("doctor.internal_resolver")
    else:
        yield from _compare(resolver(patient, str(server)), str(server), internal_records(patient.site) or records(patient.site))


@AREA.check(
    "rules",
    expects="no rule of the preview fails on live answers",
    remedy="as the line says; `make dns-snapshot` lets the preview see it too",
    page="checks.md",
)
def rules(patient: Patient) -> Iterator[Seen]:
    """The preview's rules with other people's records as they are now (SPF includes, report authorisation); only what is new is said."""
    site = patient.site
    today = date.today()
    snapshot, failed = look([site], resolver(patient, patient.resolvers[0]), today)
    for sentence in failed:
        yield blind("", sentence)
    said = set(verify(site, read_snapshot(SNAPSHOT), today))
    for finding in verify(site, snapshot, today):
        if finding not in said and finding.level != "note" and finding.code not in site.acknowledged:
            yield (broken if finding.level == "error" else degraded)(finding.setting, f"{finding.text} [{finding.code}]")


@AREA.check(
    "reverse-names",
    expects="the public addresses have a name that points back",
    remedy="ask the provider of the address for a PTR record, or list what it is in dns.hosts.<host>.reverse_name",
    page="dns.md",
)
def reverse_names(patient: Patient) -> Iterator[Seen]:
    """The reverse name of each public address, and whether it resolves to the address again; many servers refuse mail without it."""
    server = resolver(patient, patient.resolvers[0])
    hosts = patient.site.dns.hosts if patient.site.dns else {}
    for host, entry in hosts.items():
        for address in entry.addresses:
            about = f"{address} ({host})"
            names = {name.rstrip(".") for name in ask(server, dns.reversename.from_address(str(address)).to_text(), "PTR")}
            kind = "AAAA" if ipaddress.ip_address(str(address)).version == 6 else "A"
            confirmed = {name for name in names if str(address) in ask(server, name, kind)}
            if host in confirmed:
                yield ok(about, f"{host}, confirmed")
            elif entry.reverse_name and entry.reverse_name in names:
                yield ok(about, f"{entry.reverse_name}, accepted by the settings")
            else:
                yield degraded(about, f"has the reverse name {_short(names) or '(none)'}, not {host}")


@AREA.check(
    "caa",
    expects="CAA records admit the authority that issued the certificate",
    remedy="add the authority to domains.<domain>.dns.caa, or the next renewal is refused",
    page="dns.md",
)
def caa(patient: Patient) -> Iterator[Seen]:
    """The certificate that the mail hosts show now, against the CAA records that its authority will read at the next renewal."""
    server = resolver(patient, patient.resolvers[0])
    for host in dict.fromkeys(patient.site.host(domain) for domain in patient.site.domains):
        tree = host.split(".")
        # RFC 8659 section 3: the first set on the way to the root counts.
        found = (ask(server, ".".join(tree[at:]), "CAA") for at in range(len(tree) - 1))
        issuers = {text.split('"')[1].partition(";")[0].strip() for text in next(filter(None, found), set()) if " issue " in text}
        if not issuers:
            yield ok(host, "no CAA record: any authority may issue")
            continue
        issuer = _issuer(patient, server, host)
        names = next((names for words, names in AUTHORITIES.items() if words in issuer.lower()), None)
        if names is None:
            yield blind(host, f"was issued by {issuer}, whose name in CAA records is not known here; they admit {_short(issuers)}")
        elif names & issuers:
            yield ok(host, f"{issuer} is admitted")
        else:
            yield broken(
                host, f"was issued by {issuer}, and CAA records admit only {_short(issuers - {''}) or '(none)'}: it will not be renewed"
            )


def _issuer(patient: Patient, server: dns.resolver.Resolver, host: str) -> str:
    """The organisation in the issuer of the certificate that a host shows. Raises BlindError where it shows none from here."""
    addresses = [*sorted(ask(server, host, "A")), str(patient.site.edge.address)]
    for address in addresses:
        try:
            with (
                patient.connect(address, IMAPS.port, SECONDS) as plain,
                patient.tls().wrap_socket(plain, server_hostname=host) as secure,
            ):
                certificate = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
                names = certificate.issuer.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
                return str(names[0].value) if names else "an authority without a name"
        except OSError:
            continue
    raise BlindError(f"{host}: no certificate could be read at {', '.join(addresses)}")


@AREA.check(
    "mta-sts",
    expects="the served policy is the declared one",
    remedy="`make up` rolls the policy server out; then look at its Ingress and certificate",
    page="dns.md",
)
def mta_sts(patient: Patient) -> Iterator[Seen]:
    """Each domain's policy over HTTPS, byte for byte, with a certificate that verifies."""
    policies = _policies(patient)
    if not policies:
        yield unused("domains.<domain>.dns.mta_sts")
    for domain, policy in policies.items():
        url = f"https://{POLICY_HOST}.{domain}{POLICY_PATH}"
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as response:
                served = response.read(POLICY_BYTES)
        except (urllib.error.URLError, OSError) as error:
            yield broken(url, str(getattr(error, "reason", None) or error))
            continue
        yield ok(url, "as declared") if served == policy else broken(url, f"serves {len(served)} bytes that are not the declared policy")


def _policies(patient: Patient) -> Mapping[str, bytes]:
    site = patient.site
    return {name: policy_text(site, name).encode() for name, domain in site.domains.items() if site.dns and domain.dns.mta_sts}
