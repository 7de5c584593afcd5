"""The webmail: Roundcube, its host, who may reach it, its plugins, its database and its volumes."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from components.settings.extension import PodFields
from components.settings.quantity import Bytes, Cpu
from components.settings.secrets import Secret, secret_name
from components.settings.types import Fqdn, Image, Model, Network, ObjectName, Port, image_tag, text

TESTED_RELEASES = ("1.6",)
LEAST_PATCH = 12  # of 1.6: the first with the hook that runs a program after the image's own set-up

# Plugins in the image that need no server of their own and are meant for users' mail.
BuiltInPlugin = Literal[
    "acl",
    "additional_message_headers",
    "archive",
    "attachment_reminder",
    "autologout",
    "database_attachments",
    "emoticons",
    "enigma",
    "filesystem_attachments",
    "help",
    "hide_blockquote",
    "identicon",
    "identity_select",
    "managesieve",
    "markasjunk",
    "new_user_dialog",
    "new_user_identity",
    "newmail_notifier",
    "reconnect",
    "redundant_attachments",
    "show_additional_headers",
    "subscriptions_option",
    "userinfo",
    "vcard_attachments",
    "zipdownload",
]
Package = Annotated[
    str,
    *text("Composer package", r"[a-z0-9]([_.-]?[a-z0-9]+)*/[a-z0-9]([_.-]{0,2}[a-z0-9]+)*", "write vendor/package, as on Packagist"),
]
ExactVersion = Annotated[
    str,
    *text("exact version", r"v?[0-9]+(\.[0-9]+){1,3}(-[A-Za-z0-9.]+)?", "write one exact version such as 1.3.2, without ^, ~ or *"),
]
TraefikMiddleware = Annotated[
    str,
    *text("Traefik middleware", r"[a-z0-9][a-z0-9.-]*@[a-z0-9]+", "write a middleware with its provider, such as auth-login@kubernetescrd"),
]
Word = Annotated[str, *text("name", r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", "write letters, digits, '_', '-' and '.'")]


def _distinct(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError("lists an entry twice")
    return values


class DatabasePassword(Secret):
    """Key `password`: that of the webmail's database user."""

    name: ObjectName = secret_name("roundcubemail-database")


class SessionKey(Secret):
    """Key `des_key`: 24 characters that encrypt sessions; another one logs everyone out."""

    name: ObjectName = secret_name("roundcubemail-session")


class ExtraSecret(Secret):
    """Key `extra.php`: a PHP file."""

    name: ObjectName = secret_name("roundcubemail-extra")


class Database(Model):
    """Where Roundcube keeps users, settings, contacts and sessions; never mail."""

    type: Literal["sqlite", "mysql", "pgsql"] = Field(
        default="sqlite", description="sqlite: a file on a volume of its own, nothing else is needed; mysql, pgsql: a server of yours"
    )
    host: Annotated[str, *text("host name", r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "write a host name such as mysql.databases.svc")] | None = (
        Field(default=None, description="host of the database server", examples=["mysql.databases.svc.cluster.local"])
    )
    port: Port | None = Field(default=None, description="its port; null: 3306 or 5432")
    name: Word = Field(default="roundcubemail", description="the database on that server")
    user: Word = Field(default="roundcubemail", description="its user")
    password: DatabasePassword = Field(
        default=DatabasePassword(), description="Secret with the key `password`: that of the database user; not used by sqlite"
    )

    @property
    def server_port(self) -> int:
        return self.port or {"mysql": 3306, "pgsql": 5432}[self.type]


class WebmailStorage(Model):
    """Volumes of the webmail. Each exists only where something needs it, and each is protected like the mail volume."""

    database: ObjectName = Field(default="roundcubemail-database", description="claim with the SQLite file")
    plugins: ObjectName = Field(default="roundcubemail-plugins", description="claim with the installed sets of third-party plugins")
    enigma: ObjectName = Field(default="roundcubemail-enigma", description="claim with users' PGP keys, for the plugin enigma")
    storage_class: str | None = Field(default=None, description="null: mail.storage.storage_class", examples=["encrypted"])
    size: Bytes = Field(default="1Gi", description="size of each at creation")


class WebmailIngress(Model):
    """What is between the Internet and Roundcube."""

    name: ObjectName = Field(default="webmail", description="name of the Ingress")
    ingress_class: ObjectName | None = Field(
        default=None, description="IngressClass; null: the cluster's default class", examples=["traefik"]
    )
    secret: ObjectName | None = Field(
        default=None, description="Secret of type kubernetes.io/tls for the host; null: tls.secret", examples=["webmail-tls"]
    )
    cluster_issuer: ObjectName | None = Field(
        default=None,
        description="cert-manager ClusterIssuer that fills `secret`; null: the Secret exists already",
        examples=["letsencrypt"],
    )
    middlewares: Annotated[tuple[TraefikMiddleware, ...], AfterValidator(_distinct)] = Field(
        default=(),
        description="Traefik middlewares that each request passes first, in order",
        examples=[["edge-limit@kubernetescrd"]],
    )
    auth_middleware: TraefikMiddleware | None = Field(
        default=None, description="Traefik middleware that asks for the login; the last of the chain", examples=["auth-login@kubernetescrd"]
    )
    controller_namespace: ObjectName | None = Field(
        default=None,
        description="namespace of the Ingress controller, whose pods alone reach Roundcube; null: every pod does, past the login before it",
        examples=["traefik"],
    )
    controller_labels: dict[str, str] = Field(
        default={}, description="labels of its pods; empty: every pod of that namespace", examples=[{"app.kubernetes.io/name": "traefik"}]
    )
    proxies: tuple[Network, ...] | None = Field(
        default=None,
        description="networks whose X-Forwarded-For is believed; named here, they also reach Roundcube: for a controller on its nodes' "
        "network. null: cluster.pod_networks",
        examples=[["192.0.2.0/28"]],
    )
    annotations: dict[str, str] = Field(
        default={},
        description="annotations of the Ingress",
        examples=[{"traefik.ingress.kubernetes.io/router.entrypoints": "websecure"}],
    )


class WebmailResources(Model):
    """CPU and memory of Roundcube's container. CPU has no limit, so that a burst is not throttled."""

    cpu_request: Cpu = Field(default="10m", description="idle most of the time")
    memory_request: Bytes = Field(default="128Mi", description="Apache with a few workers")
    memory_limit: Bytes = Field(default="512Mi", description="a worker that shows a large message takes up to 256 MiB")


class Webmail(Model):
    """Roundcube beside the mail server: people read their mail in a browser. Needs a host and a decision on `auth`."""

    host: Fqdn = Field(description="name that users open in the browser", examples=["webmail.example.org"])
    auth: Literal["required", "app", "public", "none"] = Field(
        default="required",
        description="who gets as far as Roundcube's own login. required: who has passed the cluster's login (ingress.auth_middleware); "
        "public: the same middleware's variant that knows visitors but lets everyone in; app: everyone, Roundcube's login decides; "
        "none: as app, for a host that is only reachable from inside",
    )
    image: Image = Field(
        default="docker.io/roundcube/roundcubemail:1.6.18-apache-nonroot",
        description="official image with Apache, 1.6.12 or a later 1.6, best pinned by digest",
    )
    plugins: Annotated[tuple[BuiltInPlugin, ...], AfterValidator(_distinct)] = Field(
        default=("archive", "attachment_reminder", "managesieve", "markasjunk", "zipdownload"),
        description="plugins of the image; managesieve: filters and vacation replies, markasjunk: the buttons Junk and Not junk",
    )
    composer_plugins: dict[Package, ExactVersion] = Field(
        default={},
        description="further plugins by Composer package, each with its exact version; installed once, into a volume (docs/webmail.md)",
        examples=[{"dsoares/rcguard": "1.3.2"}],
    )
    database: Database = Field(default=Database(), description="where users, settings and contacts are kept")
    session_key: SessionKey = Field(
        default=SessionKey(),
        description="Secret with the key `des_key`: 24 characters; another one logs everyone out",
    )
    ingress: WebmailIngress = Field(default=WebmailIngress(), description="the Ingress in front of it")
    storage: WebmailStorage = Field(default=WebmailStorage(), description="its volumes")
    resources: WebmailResources = Field(default=WebmailResources(), description="CPU and memory")
    pod: PodFields = Field(default=PodFields(), description="fields of the pod")
    extra_config: str | None = Field(
        default=None,
        description="PHP lines behind Roundcube's configuration, which they override; not for secrets",
        examples=["$config['language'] = 'de_DE';"],
    )
    extra_secret: ExtraSecret | None = Field(
        default=None,
        description="Secret with the key `extra.php`: a PHP file that is read last, for plugins' own keys; null: none",
        examples=[{"name": "roundcubemail-extra"}],
    )

    @property
    def nonroot_image(self) -> bool:
        """Whether the image is the variant without root, which listens on another port."""
        return image_tag(self.image).endswith("-nonroot")

    @property
    def claims(self) -> dict[str, ObjectName]:
        """The volumes that this webmail needs: what each is for, and its claim."""
        needed = {
            "database": self.database.type == "sqlite",
            "plugins": bool(self.composer_plugins),
            "enigma": "enigma" in self.plugins,
        }
        return {use: getattr(self.storage, use) for use, is_needed in needed.items() if is_needed}
