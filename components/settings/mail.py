"""The mail server itself: image, sizes, mailboxes, aliases, relay, filter, volumes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from components.settings.extension import Extra, PodFields
from components.settings.quantity import Bytes, Cpu, in_bytes
from components.settings.secrets import Secret, secret_name
from components.settings.types import Address, AliasName, Fqdn, Image, MailAddress, Model, ObjectName, Percent, Port, image_tag, text

TESTED_IMAGE_MAJORS = {"15": "2.3", "16": "2.4"}  # each with its Dovecot, which decides the syntax (components/mail/dovecot.py)


def _a_mebibyte(value: Bytes) -> Bytes:
    if in_bytes(value) < 2**20:
        raise ValueError("write at least 1Mi")
    return value


# Postfix wants 1.5 times the largest message free before it takes any mail (queue_minfree, postconf(5)): a server
# whose volume was fuller than that refused everything for 15 hours.
QUEUE_HEADROOM = 1.5


class Mailbox(Model):
    """An account. Its password is in the accounts Secret."""

    sieve: str | None = Field(
        default=None,
        description="Sieve script (RFC 5228) that sorts this mailbox's mail",
        examples=['require ["fileinto"];\nif header :contains "List-Id" "announce" { fileinto "Lists"; }\n'],
    )
    send_as: tuple[MailAddress, ...] = Field(
        default=(), description="further addresses it may send as; a catch-all does not grant any", examples=[["sales@example.org"]]
    )
    quota: Bytes | None = Field(
        default=None, description="size limit of this mailbox; the first one enables the image's quotas for all", examples=["10Gi"]
    )


class AccountsSecret(Secret):
    """Key `accounts`: a JSON object of address to password or hash."""

    name: ObjectName = secret_name("mailserver-accounts")


class AppPasswords(Secret):
    """Key `app_passwords`: a JSON object of address to an object of device to password or hash."""

    name: ObjectName = secret_name("mailserver-app-passwords")
    required_outside: bool = Field(
        default=False,
        description="outside of cluster.pod_networks the mailbox's own password is refused, by the client's address: it is then for the "
        "webmail, the jobs and other pods, and each device needs an app password",
    )


class OAuthSecret(Secret):
    """Key `client_secret`: the client's secret at the issuer, of letters, digits and `-._~`."""

    name: ObjectName = secret_name("mailserver-oauth")


class OAuth(Model):
    """The issuer of tokens that log in to IMAP and submission (OAUTHBEARER, XOAUTH2), beside passwords. It is asked at each log-in."""

    introspection_url: Annotated[
        str,
        *text(
            "URL", r"https://[a-z0-9.-]+(:[0-9]{1,5})?/[A-Za-z0-9._~/-]*", "write a URL such as https://id.example.org/oauth2/introspect"
        ),
    ] = Field(description="where it tells what a token is worth (RFC 7662)", examples=["https://id.example.org/oauth2/introspect"])
    client_id: Annotated[str, *text("client id", r"[A-Za-z0-9._~@-]{1,256}", "write letters, digits and -._~@")] = Field(
        description="name of this client at the issuer", examples=["mailserver"]
    )
    client_secret: OAuthSecret = Field(
        default=OAuthSecret(), description="Secret with the key `client_secret`: the client's secret, of letters, digits and `-._~`"
    )
    scope: Annotated[str, *text("scope", r"[A-Za-z0-9._~:/-]{1,256}", "write one scope of letters, digits and -._~:/")] = Field(
        description="scope that a token needs. Let the issuer give it to mail programs only: any program that has it may read all mail",
        examples=["mail"],
    )
    address_claim: Annotated[str, *text("claim", r"[A-Za-z0-9_.-]{1,64}", "write the name of one claim")] = Field(
        default="email", description="claim with the mailbox's address. Its users must not be able to change it at the issuer"
    )


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

    host: Fqdn = Field(description="host name, which must be in its certificate", examples=["smtp.example.net"])
    port: Port = Field(default=587, description="submission port with STARTTLS")
    daily_quota: int | None = Field(
        default=None, ge=1, description="number of messages a day that the relay accepts from you", examples=[300]
    )
    credentials: RelaySecret = Field(default=RelaySecret(), description="Secret with the key `sasl_passwd`: `[host]:port login:password`")

    @property
    def next_hop(self) -> str:
        """As Postfix writes it; the brackets forbid an MX lookup (transport(5))."""
        return f"[{self.host}]:{self.port}"


class TrustedRelay(Model):
    """A mail server of yours that passes on mail for your domains, such as a second MX."""

    name: Annotated[
        str, *text("short name", r"[a-z][a-z0-9]{0,15}", "write a short name of lower-case letters and digits, such as mx2")
    ] = Field(description="name of its rule in Rspamd", examples=["mx2"])
    addresses: tuple[Address, ...] = Field(
        min_length=1, description="every address its connections come from, including tunnels", examples=[["192.0.2.26"]]
    )


OutboundModule = Literal["asn", "fuzzy_check", "mid", "mime_types", "multimap", "phishing", "rbl", "whitelist"]


class Rspamd(Model):
    """The spam filter and DKIM signer inside the image."""

    redis: bool = Field(
        default=True, description="keep statistics in the image's Redis (a file in the state directory), and learn from moves to Junk"
    )
    phishing: bool = Field(default=True, description="check links against the OpenPhish feed, which Rspamd downloads")
    oletools: Annotated[str, *text("host:port", r"[a-z0-9.-]+:[0-9]{1,5}", "write host:port, such as olefy:11343")] | None = Field(
        default=None, description="olefy server that looks for macros; the image does not include one", examples=["olefy:11343"]
    )
    disabled_modules: tuple[OutboundModule, ...] = Field(
        default=(),
        description="Rspamd modules to turn off because of what they ask of the Internet (docs/filter.md)",
        examples=[["fuzzy_check", "asn"]],
    )


class SendingLimit(Model):
    """What one account may send, counted in recipients, because relays do: more is deferred (451)."""

    per_hour: int = Field(default=60, ge=2, description="recipients within any hour")
    per_day: int = Field(default=200, ge=2, description="recipients within any 24 hours; at most 12 times per_hour")

    @model_validator(mode="after")
    def _one_bucket(self) -> "SendingLimit":
        if not self.per_hour <= self.per_day <= 12 * self.per_hour:
            raise ValueError("per_day: write at least per_hour, and at most 12 times per_hour")
        return self

    @property
    def at_once(self) -> int:
        """Recipients that an account may write to at a moment: with 23 hours for the rest of a day's, both bounds hold."""
        return int(self.per_hour - (self.per_day - self.per_hour) / 23)


class OwnFrom(Model):
    """Which accounts the rule of the From header spares."""

    exempt: tuple[MailAddress, ...] = Field(
        default=(),
        description="accounts that may write any address, such as a mailing list's or a contact form's",
        examples=[["lists@example.org"]],
    )


class Resources(Model):
    """CPU and memory of the mail server's container. CPU has no limit, so that a burst is not throttled."""

    cpu_request: Cpu = Field(default="25m", description="measured on an idle server")
    memory_request: Bytes = Field(default="512Mi", description="Postfix and Dovecot 150 MB, Rspamd 150-200 MB, Redis 50 MB")
    memory_limit: Bytes = Field(
        default="3328Mi", description="0.4 GiB and 14 times mail.message_size_limit: Rspamd reads two of the largest messages at once"
    )


class Storage(Model):
    """The volume that holds mail, state and logs."""

    claim: ObjectName = Field(default="mailserver-data", description="PersistentVolumeClaim; a change of name starts with an empty volume")
    storage_class: str | None = Field(default=None, description="null: the cluster's default class", examples=["encrypted"])
    size: Bytes = Field(default="5Gi", description="size at creation; afterwards the autoresizer or you grow it")
    growth_limit: Bytes = Field(default="10Gi", description="size at which the autoresizer stops")
    free_threshold_percent: Percent = Field(default=10, description="free space below which the autoresizer grows the volume")
    growth_percent: int = Field(default=100, ge=10, le=400, description="how much the autoresizer adds")
    retained_claims: dict[ObjectName, Bytes] = Field(
        default={},
        description="retired claims to keep, with their size: not mounted, protected from deletion",
        examples=[{"mailserver-old": "5Gi"}],
    )


class PriorityClass(Model):
    """Which pods are evicted first when a node runs out of resources. With a value below its neighbours', mail goes first."""

    name: ObjectName = Field(default="mailserver", description="name of the PriorityClass")
    value: int | None = Field(
        default=100_000, le=1_000_000_000, description="creates the class `<name>-<value>`; null: the class `<name>` exists already"
    )

    @property
    def class_name(self) -> str:
        """A class cannot be changed, so another value is another class: made before the pod names it, removed afterwards."""
        return self.name if self.value is None else f"{self.name}-{self.value}"


class Mail(Model):
    """The docker-mailserver Deployment and everything in it."""

    image: Image = Field(
        default="docker.io/mailserver/docker-mailserver:16.0.1",
        description=f"docker-mailserver of a tested major version ({', '.join(TESTED_IMAGE_MAJORS)}), best pinned by digest",
    )
    message_size_limit: Annotated[Bytes, AfterValidator(_a_mebibyte)] = Field(
        default="200Mi", description="size of the largest message; at least 1Mi"
    )
    mailboxes: dict[MailAddress, Mailbox] = Field(
        min_length=1,
        description="accounts by address; the accounts Secret may hold more",
        examples=[{"me@example.org": {}}],
    )
    aliases: dict[AliasName, tuple[MailAddress, ...]] = Field(
        default={},
        description="alias, or catch-all `@domain`, to its targets",
        examples=[{"postmaster@example.org": ["me@example.org"]}],
    )
    accounts: AccountsSecret = Field(
        default=AccountsSecret(), description="Secret with the key `accounts`: a JSON object of address to password or hash"
    )
    app_passwords: AppPasswords | None = Field(
        default=None,
        description="Secret with the key `app_passwords`: a JSON object of address to an object of device to password or hash, "
        "for IMAP and submission; null: mailboxes have one password each",
        examples=[{"source": {"key": "mail", "property": "app_passwords"}}],
    )
    oauth: OAuth | None = Field(
        default=None,
        description="issuer of tokens that log in to IMAP and submission (OAUTHBEARER, XOAUTH2); null: passwords only",
        examples=[
            {"introspection_url": "https://id.example.org/oauth2/introspect", "client_id": "mailserver", "scope": "mail"},
        ],
    )
    stored_aliases: AliasesSecret | None = Field(
        default=None,
        description="Secret with the key `aliases`: lines `alias target[,target…]`, added to those of the settings; null: none",
    )
    dkim: DkimSecret = Field(default=DkimSecret(), description="Secret with a key `<domain>.<selector>` for each DKIM key: PEM")
    relay: Relay | None = Field(default=None, description="smart host for outgoing mail; null: delivered directly to the recipients' MX")
    trusted_relays: tuple[TrustedRelay, ...] = Field(
        default=(),
        description="mail servers of yours that pass mail on to this one",
        examples=[[{"name": "mx2", "addresses": ["192.0.2.26"]}]],
    )
    require_reverse_name: bool = Field(default=True, description="refuse external senders whose address has no matching host name (450)")
    srs: bool | None = Field(
        default=None,
        description="rewrite envelope senders so that forwarded mail passes SPF at the next server; it changes the envelope of all "
        "inbound mail. null: on where an alias of the settings forwards to an external address",
    )
    rspamd: Rspamd = Field(default=Rspamd(), description="spam filter and DKIM signer")
    sending_limit: SendingLimit | None = Field(
        default=SendingLimit(), description="how much one account may send, so that a stolen password is of little use; null: unlimited"
    )
    own_from: OwnFrom | None = Field(
        default=OwnFrom(),
        description="refuse mail of an account (554) with an address in its From header that the account may not send as; null: only "
        "the envelope is checked",
    )
    resources: Resources = Field(default=Resources(), description="CPU and memory")
    storage: Storage = Field(default=Storage(), description="volume with mail, state and logs")
    pod: PodFields = Field(default=PodFields(), description="fields of the pod")
    extra: Extra = Field(default=Extra(), description="further configuration of the mail server; it overrides this program's")
    priority_class: PriorityClass | None = Field(default=PriorityClass(), description="priority of the pod; null: none is set")
    dns_ndots: int | None = Field(
        default=1,
        ge=1,
        le=15,
        description="`ndots` of the pod's resolver; Kubernetes' 5 turns each lookup of a client's name into four. "
        "null: dnsConfig is left to the cluster, for example where a policy controller sets it",
    )
    unreachable_toleration_seconds: int = Field(
        default=60, ge=0, description="how long the pod stays on a node that does not respond before it is moved"
    )
    allowed_namespaces: tuple[ObjectName, ...] | None = Field(
        default=None, description="namespaces that may connect to the stock ports; null: every namespace", examples=[["webapps"]]
    )

    @property
    def image_major(self) -> str:
        return image_tag(self.image).split(".")[0]

    @property
    def dovecot(self) -> str:
        """Version of the image's Dovecot. A preview refuses an image that is not tested, but texts are rendered before."""
        return TESTED_IMAGE_MAJORS.get(self.image_major, "2.4")

    @property
    def quotas(self) -> bool:
        return any(mailbox.quota for mailbox in self.mailboxes.values())
