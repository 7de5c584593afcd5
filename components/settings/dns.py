"""What the world's DNS says about this mail system: zones, mail hosts, and each domain's records."""

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from components.settings.types import Address, Fqdn, Image, MailAddress, Model, Network, ObjectName, covers, is_dns_name

# Receivers keep mail that they could not check yet, and senders try for five days (RFC 5321 section 4.5.4.1).
FLIGHT_DAYS = 7
# A verifier that asked for a selector before it was there remembers its absence (RFC 2308); a day covers every common SOA.
PUBLISH_DAYS = 1

# What a middleware's name may not hold: a sending server follows no redirect, has no login, and takes a page for no policy.
_HARMFUL_MIDDLEWARE = re.compile(r"auth|error|redirect|login|bot|challenge|captcha|sablier")


def _printable(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable():
        raise ValueError("write printable ASCII; international names go in as punycode (xn--…)")
    return value


def _selector(value: str) -> str:
    if not is_dns_name(value):
        raise ValueError("write a DKIM selector: lower-case DNS labels of letters, digits and '-'")
    return value


def _report_address(value: str) -> str:
    if not re.fullmatch(r"(mailto:[^\s,!;@]+@[a-z0-9.-]+|https://[^\s,;!]+)", value):
        raise ValueError("write mailto:user@example.org or https://…")
    return value


def _middleware(value: str) -> str:
    if found := _HARMFUL_MIDDLEWARE.search(value.lower()):
        raise ValueError(
            f"'{found[0]}' suggests a middleware that logs in, redirects or replaces answers, "
            "which a sending server takes for a missing policy (RFC 8461 section 3.3)"
        )
    return value


def _cloudflare_id(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{32}", value):
        raise ValueError("write an id as Cloudflare shows it: 32 digits and letters from a to f, in lower case")
    return value


def _unique(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError("holds an entry twice")
    return values


Text = Annotated[str, AfterValidator(_printable)]
Selector = Annotated[str, AfterValidator(_selector)]
ReportAddress = Annotated[str, AfterValidator(_report_address)]
Middleware = Annotated[str, AfterValidator(_middleware)]
Addresses = Annotated[tuple[Address, ...], AfterValidator(_unique)]
RecordId = Annotated[str, AfterValidator(_cloudflare_id)]


class MailHost(Model):
    """A name that mail is sent to, with the addresses it has."""

    addresses: Addresses = Field(min_length=1, description="public addresses")
    internal: Addresses = Field(default=(), description="addresses for clients inside; a first one brings the zone's internal view")
    reverse_name: Fqdn | None = Field(
        default=None, description="what the reverse look-up answers where that cannot be changed; the doctor then accepts it"
    )


class WebHost(Model):
    """How the cluster's Ingress is reached from the Internet: by address, or by a name such as a tunnel's."""

    addresses: Addresses = Field(default=(), description="public addresses of the Ingress")
    name: Fqdn | None = Field(default=None, description="target of a CNAME instead of addresses")
    internal: Addresses = Field(default=(), description="addresses for clients inside")
    proxied: bool = Field(default=False, description="through Cloudflare's proxy; a tunnel needs it. Mail hosts never are")

    @model_validator(mode="after")
    def _one_way(self) -> "WebHost":
        if bool(self.addresses) == (self.name is not None):
            raise ValueError("addresses: set exactly one of addresses and name")
        if self.name and self.name.endswith(".cfargotunnel.com") and not self.proxied:
            raise ValueError("proxied: a tunnel is reached through Cloudflare's proxy only; set it to true")
        return self


class Zone(Model):
    """A DNS zone that the records are put into."""

    cloudflare: RecordId | None = Field(default=None, description="zone id at Cloudflare; null leaves it at the zone file")
    other_records: int = Field(default=0, ge=0, description="records in the zone that others own, counted against its limit")
    record_limit: int = Field(default=200, ge=1, description="how many records Cloudflare's plan allows (200 in a free zone)")
    adopt: dict[str, RecordId | None] = Field(
        default={},
        description="live records to take over, by the key that the render prints: record id, or null where no such record is live; "
        "empty again once that is done",
    )
    release: tuple[str, ...] = Field(
        default=(), description="keys of protected records that are to go, `*` for all; takes effect one `up` before they may"
    )

    @model_validator(mode="after")
    def _one_key_for_each_id(self) -> "Zone":
        keys: dict[str, str] = {}
        for key, record_id in self.adopt.items():
            if record_id and record_id in keys:
                raise ValueError(f"adopt.{key}: has the id of {keys[record_id]!r}; each live record can be taken over once")
            if record_id:
                keys[record_id] = key
        return self

    def releases(self, key: str) -> bool:
        return key in self.release or "*" in self.release


class PolicyServer(Model):
    """The small web server behind mta-sts.<domain> and autoconfig.<domain>."""

    image: Image = Field(default="docker.io/library/nginx:1.28.0-alpine", description="nginx; its user 101 runs it")
    replicas: int = Field(default=2, ge=1, le=10, description="pods; two, so that a node may go")
    ingress_class: ObjectName = Field(default="traefik", description="IngressClass that leads to it")
    middlewares: tuple[Middleware, ...] = Field(
        default=(), description="Traefik middlewares (namespace-name@kubernetescrd); none of those that other hosts need"
    )
    annotations: dict[str, str] = Field(
        default={"traefik.ingress.kubernetes.io/router.entrypoints": "websecure"}, description="of the Ingress"
    )


class Certificate(Model):
    """Where the certificate of mta-sts.<domain> comes from: a Secret, renewed outside or by cert-manager."""

    secret: ObjectName = Field(description="Secret of type kubernetes.io/tls in the mail server's namespace")
    cluster_issuer: ObjectName | None = Field(default=None, description="cert-manager's ClusterIssuer that fills it; null: it exists")
    names: tuple[str, ...] = Field(default=(), description="names in a certificate that exists; unused with cluster_issuer")

    def covers(self, host: Fqdn) -> bool:
        return self.cluster_issuer is not None or covers(self.names, host)


class Spf(Model):
    """Who may send for a domain (RFC 7208). Every part but `addresses` costs receivers look-ups; ten are allowed."""

    mx: bool = Field(default=False, description="the domain's own mail hosts")
    hosts: Annotated[tuple[Fqdn, ...], AfterValidator(_unique)] = Field(default=(), description="further hosts by name (`a:`)")
    addresses: Annotated[tuple[Network, ...], AfterValidator(_unique)] = Field(
        default=(), description="addresses or networks; cost nothing"
    )
    includes: Annotated[tuple[Fqdn, ...], AfterValidator(_unique)] = Field(default=(), description="records of others, such as the relay's")
    all: Literal["fail", "softfail", "neutral"] = Field(default="fail", description="verdict on everyone else: -all, ~all, ?all")


class Dmarc(Model):
    """What receivers do with mail that fails, and where they report (RFC 9989, which knows no pct, ri and rf)."""

    policy: Literal["none", "quarantine", "reject"] = Field(default="none", description="p: what becomes of mail that fails")
    subdomains: Literal["none", "quarantine", "reject"] | None = Field(default=None, description="sp; null: as policy")
    nonexistent: Literal["none", "quarantine", "reject"] | None = Field(default=None, description="np; null: as subdomains")
    dkim_alignment: Literal["relaxed", "strict"] = Field(default="relaxed", description="adkim; strict: no subdomain may sign for it")
    spf_alignment: Literal["relaxed", "strict"] = Field(default="relaxed", description="aspf; strict: no subdomain may send for it")
    aggregate_reports: Annotated[tuple[ReportAddress, ...], AfterValidator(_unique)] = Field(default=(), description="rua")
    failure_reports: Annotated[tuple[ReportAddress, ...], AfterValidator(_unique)] = Field(default=(), description="ruf")
    failure_options: Literal["0", "1", "d", "s", "1:d:s"] = Field(default="0", description="fo; only sent with failure_reports")
    testing: bool = Field(default=False, description="t=y: report, and apply the policy one step milder")


class MtaSts(Model):
    """Senders must find TLS and a known MX, or keep the mail (RFC 8461)."""

    mode: Literal["none", "testing", "enforce"] = Field(
        default="testing", description="to stop, publish `none` for as long as max_age was before the setting goes (section 8.3)"
    )
    testing_since: date | None = Field(
        default=None, description="since when `testing` has been live and its TLS reports were read; `enforce` needs four weeks of it"
    )
    former_mx: tuple[Fqdn, ...] = Field(
        default=(), description="hosts that the policy still names though they are no longer in mx, until senders have forgotten them"
    )
    max_age: int = Field(default=604_800, ge=0, le=31_557_600, description="seconds that senders keep the policy")
    certificate: Certificate = Field(description="of mta-sts.<domain>")


class Srv(Model):
    """Where clients find the services (RFC 6186, RFC 8314)."""

    submissions: bool = Field(default=True, description="sending with TLS from the start, on 465")
    imaps: bool = Field(default=True, description="reading with TLS from the start, on 993")
    submission: bool = Field(default=False, description="STARTTLS on 587, for clients that know nothing else")


class Caa(Model):
    """Who may issue certificates for the domain (RFC 8659)."""

    tag: Literal["issue", "issuewild", "issuemail", "iodef"] = Field(description="what is allowed, or where refusals are reported")
    value: Text = Field(description="the authority, or a mailto: or https: address")
    critical: bool = Field(default=False, description="an authority that does not know the tag must refuse")


class DomainRecords(Model):
    """The records of one mail domain. What is left out follows from the rest of the settings."""

    mx: dict[Fqdn, Annotated[int, Field(ge=0, le=65535)]] = Field(
        default={}, description="mail hosts with their preference, lowest first; empty means the domain's own host at 10"
    )
    spf: Spf = Field(default=Spf(mx=True), description="who may send")
    dkim_cnames: dict[Selector, Fqdn] = Field(default={}, description="selectors whose keys the relay keeps, and where")
    dmarc: Dmarc | None = Field(default=Dmarc(), description="what receivers do with mail that fails; null publishes none")
    mta_sts: MtaSts | None = Field(default=None, description="TLS that senders insist on; null announces none")
    tls_reports: Annotated[tuple[ReportAddress, ...], AfterValidator(_unique)] = Field(default=(), description="TLSRPT (RFC 8460)")
    verification: Annotated[tuple[Text, ...], AfterValidator(_unique)] = Field(
        default=(), description="proofs of ownership, TXT at the domain"
    )
    srv: Srv | None = Field(default=Srv(), description="what mail programs find by themselves; null publishes none")
    caa: tuple[Caa, ...] = Field(default=(), description="who may issue certificates; empty: anyone")
    autoconfig: Certificate | None = Field(
        default=None, description="serve autoconfig.<domain> for Thunderbird from the policy server, with this certificate"
    )


class Parked(Model):
    """A domain that neither sends nor gets mail: everything in its name is to be refused."""

    aggregate_reports: tuple[ReportAddress, ...] = Field(default=(), description="rua of its DMARC record: who tries to send as it")


class Dns(Model):
    """DNS of the whole site."""

    hosts: dict[Fqdn, MailHost] = Field(min_length=1, description="every mail host that a domain's MX names")
    web: WebHost | None = Field(default=None, description="where mta-sts. and autoconfig. are reached")
    zones: dict[Fqdn, Zone] = Field(default={}, description="zones by name; a domain in none of them is a zone of its own")
    parked: dict[Fqdn, Parked] = Field(default={}, description="domains of ours that have no mail at all")
    ttl: Annotated[int, Field(ge=60, le=86400)] | None = Field(default=None, description="seconds; null is Cloudflare's automatic (300)")
    policy_server: PolicyServer = Field(default=PolicyServer(), description="serves policies and autoconfig where a domain has them")
    external_report_addresses: tuple[MailAddress, ...] = Field(
        default=(), description="mailboxes outside the settings (aliases of the secret store) that take reports"
    )
