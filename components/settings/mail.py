"""The mail server itself: image, sizes, mailboxes, aliases, relay, filter, volumes."""

from pydantic import Field

from components.settings.secrets import Secret, secret_name
from components.settings.types import Address, AliasName, Fqdn, Image, MailAddress, Model, ObjectName, Percent, Port, Quantity

TESTED_IMAGE_MAJORS = ("15",)  # 16 brings Dovecot 2.4, whose configuration syntax is another one


class Mailbox(Model):
    """An account. Its password stands in the accounts Secret."""

    sieve: str | None = Field(default=None, description="Sieve script (RFC 5228) that sorts this mailbox's mail")
    send_as: tuple[MailAddress, ...] = Field(default=(), description="further addresses it may send as; a catch-all alone grants none")
    quota: Quantity | None = Field(default=None, description="limit of this mailbox; a first one turns the image's quotas on for all")


class AccountsSecret(Secret):
    """Key `accounts`: JSON map of address to password or hash."""

    name: ObjectName = secret_name("mailserver-accounts")


class AliasesSecret(Secret):
    """Key `aliases`: lines `alias target[,target…]`."""

    name: ObjectName = secret_name("mailserver-aliases")


class RelaySecret(Secret):
    """Key `sasl_passwd`: `[host]:port login:password`."""

    name: ObjectName = secret_name("mailserver-relay")


class DkimSecret(Model):
    """One key `<domain>.<selector>` for each DKIM key: PEM. The sources are those of domains.*.dkim."""

    name: ObjectName = secret_name("mailserver-dkim")


class Relay(Model):
    """The smart host that all outgoing mail leaves through, with authentication and verified TLS."""

    host: Fqdn = Field(description="its name, which its certificate must bear")
    port: Port = Field(default=587, description="submission with STARTTLS")
    daily_quota: int | None = Field(default=None, ge=1, description="messages a day that the relay takes from us")
    credentials: RelaySecret = Field(default=RelaySecret(), description="key `sasl_passwd`: `[host]:port login:password`")

    @property
    def next_hop(self) -> str:
        """As Postfix writes it; the brackets forbid an MX look-up (transport(5))."""
        return f"[{self.host}]:{self.port}"


class TrustedRelay(Model):
    """A mail server of ours that passes on mail for our domains, such as a second MX."""

    name: str = Field(pattern=r"^[a-z][a-z0-9]{0,15}$", description="names its rule in Rspamd")
    addresses: tuple[Address, ...] = Field(min_length=1, description="every address its connections come from, tunnels included")


class Rspamd(Model):
    """The spam filter and DKIM signer that runs inside the image."""

    redis: bool = Field(
        default=True, description="keep statistics in the image's Redis (file in the state folder) and learn from moves to Junk"
    )
    phishing: bool = Field(default=True, description="check links against the OpenPhish feed, fetched by Rspamd")
    oletools: str | None = Field(
        default=None, pattern=r"^[a-z0-9.-]+:\d{1,5}$", description="host:port of an olefy server that looks for macros; the image has none"
    )


class Resources(Model):
    """CPU and memory of the mail server's container."""

    cpu_request: Quantity = Field(default="25m", description="seen on an idle server; no limit, so that a burst is not throttled")
    memory_request: Quantity = Field(default="512Mi", description="Postfix and Dovecot 150 MB, Rspamd 150-200 MB, Redis 50 MB")
    memory_limit: Quantity = Field(
        default="1536Mi", description="0.4 GiB and five times mail.message_size_limit: Rspamd holds two of the largest messages at once"
    )


class Storage(Model):
    """The volume that holds mail, state and logs."""

    claim: ObjectName = Field(
        default="mailserver-data-encrypted", description="the PersistentVolumeClaim; another name is an empty mailbox"
    )
    storage_class: str | None = Field(default=None, description="null takes the cluster's default class")
    size: Quantity = Field(default="5Gi", description="at creation; afterwards the autoresizer or you grow it")
    growth_limit: Quantity = Field(default="10Gi", description="where the autoresizer stops")
    free_threshold_percent: Percent = Field(default=10, description="FREE space, in percent, at which the autoresizer grows the volume")
    growth_percent: int = Field(default=100, ge=10, le=400, description="percent to grow by")
    retained_claims: dict[ObjectName, Quantity] = Field(
        default={}, description="claims of an earlier life that nothing mounts and nothing may delete, with their size"
    )


class PriorityClass(Model):
    """How the pod ranks when a node runs out of room. A value below the neighbours' makes mail the first to be evicted."""

    name: ObjectName = Field(default="mailserver", description="the PriorityClass; one made by others where `value` is null")
    value: int | None = Field(default=100_000, le=1_000_000_000, description="makes the class with this value; null uses an existing one")


class Mail(Model):
    """The docker-mailserver Deployment and everything inside it."""

    image: Image = Field(
        default="docker.io/mailserver/docker-mailserver:15.1.0",
        description="docker-mailserver of a tested major version, best with its digest",
    )
    message_size_limit: int = Field(default=209_715_200, ge=1_048_576, description="bytes of the largest message (200 MiB)")
    mailboxes: dict[MailAddress, Mailbox] = Field(min_length=1, description="accounts by address; the accounts Secret may hold more")
    aliases: dict[AliasName, tuple[MailAddress, ...]] = Field(default={}, description="alias or catch-all `@domain` to its targets")
    accounts: AccountsSecret = Field(default=AccountsSecret(), description="key `accounts`: JSON map of address to password or hash")
    stored_aliases: AliasesSecret | None = Field(
        default=None, description="key `aliases`: lines `alias target[,target…]`, added to those of the settings"
    )
    dkim: DkimSecret = Field(default=DkimSecret(), description="one key `<domain>.<selector>` for each DKIM key: PEM")
    relay: Relay | None = Field(default=None, description="null delivers straight to the recipients' MX")
    trusted_relays: tuple[TrustedRelay, ...] = Field(default=(), description="other MX of ours that pass mail on to this server")
    require_reverse_name: bool = Field(default=True, description="refuse strangers whose address has no matching name (450)")
    srs: bool | None = Field(
        default=None,
        description="rewrite envelope senders so that forwarded mail passes SPF at its next hop; it changes the envelope of all "
        "inbound mail. null: on where an alias of the settings forwards outside",
    )
    rspamd: Rspamd = Field(default=Rspamd(), description="spam filter and DKIM signer")
    resources: Resources = Field(default=Resources(), description="CPU and memory")
    storage: Storage = Field(default=Storage(), description="the volume with mail, state and logs")
    priority_class: PriorityClass | None = Field(default=PriorityClass(), description="priority of the pod; null sets none")
    dns_ndots: int | None = Field(
        default=1,
        ge=1,
        le=15,
        description="`ndots` of the pod's resolver; Kubernetes' 5 turns each lookup of a client's name into four. "
        "null leaves dnsConfig to the cluster, for example where a policy controller sets it",
    )
    unreachable_toleration_seconds: int = Field(
        default=60, ge=0, description="how long the pod waits on a node that does not answer before it moves"
    )
    allowed_namespaces: tuple[ObjectName, ...] | None = Field(
        default=None, description="namespaces that may reach the stock ports; null means every namespace"
    )

    @property
    def quotas(self) -> bool:
        return any(mailbox.quota for mailbox in self.mailboxes.values())
