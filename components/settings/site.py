"""A stack's settings as a whole; parse.py reads them, checks.py holds the rules between areas."""

import dataclasses
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import Field

from components.listeners import LISTENERS, Listener
from components.names import MAIL_SERVER
from components.settings.cluster import Cluster
from components.settings.dkim import DkimKey
from components.settings.dns import Dns, DomainRecords
from components.settings.doctor import Doctor
from components.settings.edge import Edge
from components.settings.jobs import Jobs
from components.settings.mail import Mail
from components.settings.monitoring import Monitoring
from components.settings.secrets import SecretStore
from components.settings.types import CertificateName, Fqdn, Model, ObjectName, covers, domain_of
from components.settings.webmail import Webmail

KEY = "mailserver:site"


class Domain(Model):
    """A mail domain that is served here."""

    host: Fqdn | None = Field(
        default=None, description="name of this domain's mail server; null: `mail.<domain>`", examples=["mail.example.org"]
    )
    dkim: tuple[DkimKey, ...] = Field(
        default=(), description="DKIM keys; every key in the stage `signing` signs", examples=[[{"selector": "mail"}]]
    )
    dns: DomainRecords = Field(default=DomainRecords(), description="the domain's records; used where the site has `dns`")

    @property
    def signing_keys(self) -> tuple[DkimKey, ...]:
        return tuple(key for key in self.dkim if key.signs)


class Tls(Model):
    """The certificate of the mail hosts: a Secret of type kubernetes.io/tls, renewed elsewhere (cert-manager, a pipeline)."""

    secret: ObjectName = Field(description="name of the Secret in the stack's namespace", examples=["mail-tls"])
    names: tuple[CertificateName, ...] = Field(
        min_length=1, description="names in the certificate; `*.example.org` covers one label", examples=[["mail.example.org"]]
    )

    cluster_issuer: ObjectName | None = Field(
        default=None,
        description="ClusterIssuer of cert-manager that issues the certificate (by DNS-01 for a `*`); null: it is made elsewhere",
        examples=["letsencrypt"],
    )

    def covers(self, host: Fqdn) -> bool:
        return covers(self.names, host)


class Site(Model):
    """Everything about one installation that is not secret."""

    production: bool = Field(
        default=True, description="warn of what a site that carries mail should not have, such as images that are not pinned"
    )
    namespace: ObjectName = Field(default="mailserver", description="Namespace that this stack creates and never deletes")
    domains: dict[Fqdn, Domain] = Field(min_length=1, description="mail domains, by name", examples=[{"example.org": {}}])
    primary_domain: Fqdn | None = Field(
        default=None,
        description="domain whose mail host is the server's own name; null: the only one; required with several",
        examples=["example.org"],
    )
    cluster: Cluster = Field(description="the Kubernetes cluster")
    edge: Edge = Field(description="the pfSense firewall in front of it")
    tls: Tls = Field(description="certificate of the mail hosts")
    mail: Mail = Field(description="the mail server")
    jobs: Jobs = Field(default=Jobs(), description="probe, backup with restore drill, retention, reports, reputation")
    monitoring: Monitoring | None = Field(default=None, description="alerts and what belongs to them; null: none")
    webmail: Webmail | None = Field(default=None, description="Roundcube in a browser; null: none")
    secret_store: SecretStore | None = Field(
        default=None, description="where external-secrets reads credentials from; null: you create every Secret"
    )
    dns: Dns | None = Field(default=None, description="the records of all domains; null: you manage DNS yourself")
    doctor: Doctor = Field(default=Doctor(), description="where `make doctor` looks from")
    adopt: tuple[str, ...] = Field(
        default=(),
        description="existing objects to adopt instead of creating them, as Kind/name; remove again after the `up`",
        examples=[["Namespace/mailserver"]],
    )
    acknowledged: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default={}, description="findings that are decided, by code, with the reason; a preview shows them in one line"
    )

    unprotected: tuple[str, ...] = Field(
        default=(),
        description="what an `up` or `destroy` may delete or replace, as Kind/name; all else that holds or carries mail is protected",
        examples=[["PersistentVolumeClaim/mailserver-letsencrypt-encrypted"]],
    )

    @property
    def primary(self) -> Fqdn:
        return self.primary_domain or next(iter(self.domains))

    def host(self, domain: Fqdn) -> Fqdn:
        return self.domains[domain].host or f"mail.{domain}"

    @property
    def hostname(self) -> Fqdn:
        """The name the server gives itself: its banner, its HELO, its certificate."""
        return self.host(self.primary)

    @property
    def public_addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        """Of all mail hosts in the DNS, each once."""
        hosts = self.dns.hosts.values() if self.dns else ()
        return tuple(dict.fromkeys(address for host in hosts for address in host.addresses))

    @property
    def external_aliases(self) -> tuple[str, ...]:
        """Aliases of the settings that forward to another provider."""
        aliases = self.mail.aliases.items()
        return tuple(alias for alias, targets in aliases if any(domain_of(target) not in self.domains for target in targets))

    @property
    def srs(self) -> bool:
        """Whether envelope senders are rewritten."""
        return bool(self.external_aliases) if self.mail.srs is None else self.mail.srs

    @property
    def managesieve(self) -> bool:
        """Whether users write Sieve scripts, which they do in the webmail."""
        return self.webmail is not None and "managesieve" in self.webmail.plugins

    @property
    def in_cluster_host(self) -> str:
        """Where pods reach the stock ports."""
        return f"{MAIL_SERVER}.{self.namespace}.svc.cluster.local"

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """The table of mail services with this site's NodePorts."""
        overrides = {name: {"node_port": ports.proxy, "health_node_port": ports.health} for name, ports in self.cluster.node_ports.items()}
        return tuple(dataclasses.replace(listener, **overrides.get(listener.name, {})) for listener in LISTENERS)
