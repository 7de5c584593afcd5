"""What the public DNS says about this mail system: zones, mail hosts, and the records of each domain."""

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from components.settings.extension import PodFields
from components.settings.types import (
    LABEL,
    Address,
    CertificateName,
    Fqdn,
    Image,
    MailAddress,
    Model,
    Network,
    ObjectName,
    UserServiceName,
    covers,
    text,
)

# Receivers keep mail that they could not check yet, and senders try for five days (RFC 5321 section 4.5.4.1).
FLIGHT_DAYS = 7
# A verifier that asked for a selector before it was there remembers its absence (RFC 2308); a day covers every common SOA.
PUBLISH_DAYS = 1

# What a middleware's name may not hold: a sending server follows no redirect, has no login, and takes a page for no policy.
_HARMFUL_MIDDLEWARE = re.compile(r"auth|error|redirect|login|bot|challenge|captcha|sablier")


def _middleware(value: str) -> str:
    if found := _HARMFUL_MIDDLEWARE.search(value.lower()):
        raise ValueError(
            f"'{found[0]}' suggests a middleware that requires a login, redirects or replaces answers, "
            "which a sending server takes for a missing policy (RFC 8461 section 3.3)"
        )
    return value


def _unique(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError("lists an entry twice")
    return values


Text = Annotated[str, *text("printable ASCII", r"[ -~]+", "write printable ASCII; international names go in as punycode (xn--…)")]
Selector = Annotated[
    str,
    *text(
        "DKIM selector",
        rf"(?!.{{254}}){LABEL}(\.{LABEL})*",
        "write a DKIM selector: lower-case DNS labels of letters, digits and '-'",
    ),
]
ReportAddress = Annotated[
    str,
    *text(
        "mailto: or https: address",
        r"mailto:[^\s,!;@]+@[a-z0-9.-]+|https://[^\s,;!]+",
        "write mailto:user@example.org or https://…",
    ),
]
ReportAddresses = Annotated[tuple[ReportAddress, ...], AfterValidator(_unique)]
Middleware = Annotated[str, AfterValidator(_middleware)]
KeyDigest = Annotated[
    str, *text("SHA-256 digest", r"[0-9a-f]{64}", "write a SHA-256 digest: 64 digits and letters from a to f, in lower case")
]
Addresses = Annotated[tuple[Address, ...], AfterValidator(_unique)]
RecordId = Annotated[
    str,
    *text("Cloudflare id", "[0-9a-f]{32}", "write an id as Cloudflare shows it: 32 digits and letters from a to f, in lower case"),
]


class MailHost(Model):
    """A host that mail is sent to, and its addresses."""

    addresses: Addresses = Field(min_length=1, description="public addresses", examples=[["192.0.2.25"]])
    internal: Addresses = Field(
        default=(), description="addresses for internal clients; setting any of them creates the zone's internal view"
    )
    tlsa: Annotated[tuple[KeyDigest, ...], AfterValidator(_unique)] = Field(
        default=(),
        description="SHA-256 of the public key that serves port 25, for TLSA records (DANE); in a zone with DNSSEC only, "
        "and only for a key that renewals keep",
    )
    reverse_name: Fqdn | None = Field(
        default=None,
        description="what the reverse lookup returns where you cannot change it",
        examples=["192-0-2-25.isp.example.net"],
    )


class WebHost(Model):
    """How the cluster's Ingress is reached from the Internet: by address, or by a name such as a tunnel's. Set exactly one of the two."""

    addresses: Addresses = Field(default=(), description="public addresses of the Ingress", examples=[["192.0.2.80"]])
    name: Fqdn | None = Field(default=None, description="target of a CNAME instead of addresses", examples=["ingress.example.org"])
    internal: Addresses = Field(default=(), description="addresses for internal clients")
    proxied: bool = Field(default=False, description="through Cloudflare's proxy, which a tunnel requires; mail hosts never are")

    @model_validator(mode="after")
    def _one_way(self) -> "WebHost":
        if bool(self.addresses) == (self.name is not None):
            raise ValueError("addresses: set exactly one of addresses and name")
        if self.name and self.name.endswith(".cfargotunnel.com") and not self.proxied:
            raise ValueError("proxied: a tunnel can only be reached through Cloudflare's proxy; set it to true")
        return self


class Zone(Model):
    """A DNS zone that holds the records."""

    cloudflare: RecordId | None = Field(
        default=None,
        description="zone id at Cloudflare; null: only a zone file is written",
        examples=["0123456789abcdef0123456789abcdef"],
    )
    dnssec: bool = Field(default=False, description="the zone is signed and its parent has the DS record; TLSA records need it")
    other_records: int = Field(default=0, ge=0, description="number of records in the zone that are not managed here; they count too")
    record_limit: int = Field(default=200, ge=1, description="number of records that the Cloudflare plan allows (200 in a free zone)")
    adopt: dict[str, RecordId | None] = Field(
        default={},
        description="live records to adopt, by the key that the render prints: record id, or null where no such record is live; "
        "remove again after the `up`",
    )
    release: tuple[str, ...] = Field(
        default=(),
        description="keys of protected records that may be deleted, `*` for all; needs an `up` of its own first",
    )

    @model_validator(mode="after")
    def _one_key_for_each_id(self) -> "Zone":
        keys: dict[str, str] = {}
        for key, record_id in self.adopt.items():
            if record_id and record_id in keys:
                raise ValueError(f"adopt.{key}: has the id of {keys[record_id]!r}; each live record can be adopted only once")
            if record_id:
                keys[record_id] = key
        return self

    def releases(self, key: str) -> bool:
        return key in self.release or "*" in self.release


class PolicyServer(Model):
    """The small web server behind `mta-sts.<domain>`, `autoconfig.<domain>` and `autodiscover.<domain>`."""

    image: Image = Field(default="docker.io/library/nginx:1.28.0-alpine", description="nginx image; it runs as user 101")
    replicas: int = Field(default=2, ge=1, le=10, description="number of pods; two survive the loss of a node")
    pod: PodFields = Field(default=PodFields(), description="fields of its pods")
    ingress_class: ObjectName | None = Field(
        default=None, description="IngressClass of its Ingress; null: the cluster's default class", examples=["traefik"]
    )
    middlewares: tuple[Middleware, ...] = Field(
        default=(), description="Traefik middlewares (namespace-name@kubernetescrd); none that requires a login or redirects"
    )
    annotations: dict[str, str] = Field(
        default={},
        description="annotations of the Ingress",
        examples=[{"traefik.ingress.kubernetes.io/router.entrypoints": "websecure"}],
    )


class Certificate(Model):
    """The certificate of a host of the policy server: a Secret, renewed elsewhere or by cert-manager."""

    secret: ObjectName = Field(description="Secret of type kubernetes.io/tls in the stack's namespace", examples=["mta-sts-tls"])
    cluster_issuer: ObjectName | None = Field(
        default=None, description="cert-manager ClusterIssuer that issues it; null: the Secret exists already", examples=["letsencrypt"]
    )
    names: tuple[CertificateName, ...] = Field(
        default=(), description="names in an existing certificate; unused with cluster_issuer", examples=[["*.example.org"]]
    )

    def covers(self, host: Fqdn) -> bool:
        return self.cluster_issuer is not None or covers(self.names, host)


class Spf(Model):
    """Who may send for a domain (RFC 7208). Receivers allow ten DNS lookups; every part but `addresses` costs some."""

    mx: bool = Field(default=True, description="the domain's own mail hosts; false only where all mail leaves through a relay")
    hosts: Annotated[tuple[Fqdn, ...], AfterValidator(_unique)] = Field(
        default=(), description="further hosts by name (`a:`)", examples=[["app.example.org"]]
    )
    addresses: Annotated[tuple[Network, ...], AfterValidator(_unique)] = Field(
        default=(), description="addresses or networks (`ip4:`, `ip6:`)", examples=[["192.0.2.0/28"]]
    )
    includes: Annotated[tuple[Fqdn, ...], AfterValidator(_unique)] = Field(
        default=(), description="SPF records of others (`include:`), such as the relay's", examples=[["spf.example.net"]]
    )
    all: Literal["fail", "softfail", "neutral"] = Field(
        default="fail", description="verdict on every other sender: fail -all, softfail ~all, neutral ?all"
    )


class Dmarc(Model):
    """What receivers do with mail that fails, and where they report (RFC 9989, which drops pct, ri and rf)."""

    policy: Literal["none", "quarantine", "reject"] = Field(default="none", description="p: what happens to mail that fails")
    subdomains: Literal["none", "quarantine", "reject"] | None = Field(default=None, description="sp; null: same as policy")
    nonexistent: Literal["none", "quarantine", "reject"] | None = Field(default=None, description="np; null: same as subdomains")
    dkim_alignment: Literal["relaxed", "strict"] = Field(default="relaxed", description="adkim; strict: no subdomain may sign for it")
    spf_alignment: Literal["relaxed", "strict"] = Field(default="relaxed", description="aspf; strict: no subdomain may send for it")
    aggregate_reports: ReportAddresses = Field(
        default=(), description="rua: where aggregate reports go", examples=[["mailto:postmaster@example.org"]]
    )
    failure_reports: ReportAddresses = Field(
        default=(), description="ruf: where failure reports go", examples=[["mailto:postmaster@example.org"]]
    )
    failure_options: Literal["0", "1", "d", "s", "1:d:s"] = Field(default="0", description="fo; published only with failure_reports")
    testing: bool = Field(default=False, description="t=y: report, and apply the policy one step milder")


class MtaSts(Model):
    """Senders must find TLS and a listed MX, or keep the mail (RFC 8461)."""

    mode: Literal["none", "testing", "enforce"] = Field(
        default="testing", description="mode of the policy; to stop, publish `none` for max_age before removing the block (section 8.3)"
    )
    testing_since: date | None = Field(
        default=None,
        description="day since which `testing` has been live and its TLS reports are read; `enforce` requires four weeks of it",
        examples=["2026-01-31"],
    )
    previous_mx: tuple[Fqdn, ...] = Field(
        default=(),
        description="hosts that the policy still names though they are no longer in mx, until senders' caches have expired",
        examples=[["mx2.example.org"]],
    )
    max_age: int = Field(default=604_800, ge=0, le=31_557_600, description="seconds for which senders cache the policy")
    certificate: Certificate = Field(description="certificate of `mta-sts.<domain>`")


class Caa(Model):
    """Who may issue certificates for the domain (RFC 8659)."""

    tag: Literal["issue", "issuewild", "issuemail", "iodef"] = Field(
        description="what is allowed, or where refusals are reported (iodef)", examples=["issue"]
    )
    value: Text = Field(description="the certificate authority, or a mailto: or https: address", examples=["letsencrypt.org"])
    account: str | None = Field(
        default=None,
        pattern=r"^https://[^\s;\"]+$",
        description="URI of the only account of that authority that may (accounturi, RFC 8657); ACME clients show theirs",
    )
    critical: bool = Field(default=False, description="an authority that does not know the tag must refuse")

    @property
    def text(self) -> str:
        """The record's value with its parameters."""
        return f"{self.value}; accounturi={self.account}" if self.account else self.value


class DomainRecords(Model):
    """The records of one mail domain. Whatever is left out follows from the other settings."""

    mx: dict[Fqdn, Annotated[int, Field(ge=0, le=65535)]] = Field(
        default={},
        description="mail hosts with their preference, lowest first; empty: the domain's own host at 10",
        examples=[{"mail.example.org": 10}],
    )
    spf: Spf = Field(default=Spf(), description="who may send for the domain")
    dkim_cnames: dict[Selector, Fqdn] = Field(
        default={},
        description="selectors whose keys the relay publishes, and where",
        examples=[{"relay1": "relay1.dkim.example.net"}],
    )
    dmarc: Dmarc | None = Field(default=Dmarc(), description="what receivers do with mail that fails; null: no DMARC record")
    mta_sts: MtaSts | None = Field(default=None, description="TLS that senders must insist on; null: no policy")
    tls_reports: ReportAddresses = Field(
        default=(), description="where TLS reports go (RFC 8460)", examples=[["mailto:postmaster@example.org"]]
    )
    verification: Annotated[tuple[Text, ...], AfterValidator(_unique)] = Field(
        default=(), description="proofs of ownership: TXT records at the domain", examples=[["provider-code:0123456789"]]
    )
    srv: Annotated[tuple[UserServiceName, ...], AfterValidator(_unique)] = Field(
        default=("submissions", "imaps"), description="services that mail programs find by SRV records (RFC 6186, RFC 8314)"
    )
    caa: tuple[Caa, ...] = Field(default=(), description="who may issue certificates; empty: any authority")
    autoconfig: Certificate | None = Field(
        default=None,
        description="certificate of `autoconfig.<domain>`, which the policy server serves for Thunderbird and, as a profile, for Apple's "
        "devices; null: not served",
    )
    autodiscover: Certificate | None = Field(
        default=None,
        description="certificate of `autodiscover.<domain>`, which the policy server serves for Outlook; null: not served",
    )


class Parked(Model):
    """A domain that neither sends nor receives mail: receivers reject everything in its name."""

    aggregate_reports: tuple[ReportAddress, ...] = Field(
        default=(), description="rua of its DMARC record: reports who tries to send as it", examples=[["mailto:postmaster@example.org"]]
    )


class Dns(Model):
    """The site's DNS."""

    hosts: dict[Fqdn, MailHost] = Field(
        min_length=1,
        description="every mail host that the MX of a domain names",
        examples=[{"mail.example.org": {"addresses": ["192.0.2.25"]}}],
    )
    web: WebHost | None = Field(default=None, description="where the hosts of the policy server and the webmail are reached")
    zones: dict[Fqdn, Zone] = Field(
        default={}, description="zones by name; a domain that lies in none of them is a zone of its own", examples=[{"example.org": {}}]
    )
    parked: dict[Fqdn, Parked] = Field(default={}, description="your domains without mail", examples=[{"example.com": {}}])
    ttl: Annotated[int, Field(ge=60, le=86400)] | None = Field(
        default=None, description="seconds; null: Cloudflare's automatic value (300)", examples=[3600]
    )
    policy_server: PolicyServer = Field(
        default=PolicyServer(), description="web server for MTA-STS policies and the settings of mail programs, where a domain has them"
    )
    external_report_addresses: tuple[MailAddress, ...] = Field(
        default=(),
        description="mailboxes and aliases that receive reports but are not in the settings, such as aliases in the secret store",
        examples=[["dmarc@example.org"]],
    )

    @model_validator(mode="after")
    def _one_zone_for_each_id(self) -> "Dns":
        names: dict[str, Fqdn] = {}
        for name, zone in self.zones.items():
            if zone.cloudflare and names.setdefault(zone.cloudflare, name) != name:
                raise ValueError(f"zones.{name}.cloudflare: is the id of {names[zone.cloudflare]} too; each zone has its own")
        return self
