"""Which Secrets the mail system needs, and what they are made from."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from components.settings.secrets import Heartbeats, StoreKey
from components.settings.site import Site

ACCOUNTS_KEY = "accounts"
ALIASES_KEY = "aliases"
RELAY_KEY = "sasl_passwd"


@dataclass(frozen=True)
class SecretPlan:
    """A Secret that an ExternalSecret makes: its keys with their places in the store, or a template over them."""

    name: str
    keys: dict[str, StoreKey]
    template: dict[str, str] = field(default_factory=dict)


def secret_plans(site: Site) -> Iterator[SecretPlan]:
    """Every Secret with a source in the store. One without a source exists already."""
    secrets = site.secrets
    for secret, key, wanted in (
        (secrets.accounts, ACCOUNTS_KEY, True),
        (secrets.aliases, ALIASES_KEY, True),
        (secrets.relay, RELAY_KEY, site.mail.relay is not None),
        (secrets.backup, "password", True),
        (secrets.webmail_database, "password", True),
    ):
        if wanted and secret and secret.source:
            yield SecretPlan(secret.name, {key: secret.source})
    # A published key is fetched too, so that a fault in the store shows before its turn to sign.
    dkim = {
        key.secret_key(name): key.source
        for name, domain in site.domains.items()
        for key in domain.dkim
        if key.source and key.stage in {"published", "signing"}
    }
    if dkim:
        yield SecretPlan(secrets.dkim, dkim)
    if secrets.probe and secrets.probe.brevo and secrets.accounts.source:
        # The stored values are wrapped, and an address is no path that `property` could follow: hence a template.
        yield SecretPlan(
            secrets.probe.name,
            {"brevo": secrets.probe.brevo, "accounts": secrets.accounts.source},
            {
                "BREVO_API_KEY": '{{ .brevo | b64dec | fromJson | dig "api_key" "" }}',
                "EMAIL_MONITOR_IMAP_PASSWORD": f'{{{{ .accounts | fromJson | dig "{secrets.probe.mailbox}" "" }}}}',
            },
        )
    heartbeats, retention = secrets.heartbeats, site.jobs.retention
    if heartbeats and (sources := {key: place for key, place in _heartbeats(heartbeats).items() if place}):
        yield SecretPlan(heartbeats.name, sources)
    if retention and secrets.accounts.source:
        boxes = sorted({rule.mailbox for rule in retention.rules})
        template = {box.replace("@", "_at_"): f'{{{{ .accounts | fromJson | dig "{box}" "" }}}}' for box in boxes}
        yield SecretPlan(secrets.retention, {"accounts": secrets.accounts.source}, template)


def _heartbeats(heartbeats: Heartbeats) -> dict[str, StoreKey | None]:
    return {"uptime_kuma": heartbeats.uptime_kuma, "urls": heartbeats.urls}


def mounted_secrets(site: Site) -> dict[str, str]:
    """The Secrets that the init container reads: its folder for each, and the Secret's name."""
    secrets = site.secrets
    mounts = {"accounts": secrets.accounts.name}
    if secrets.aliases:
        mounts["aliases"] = secrets.aliases.name
    if site.mail.relay:
        mounts["relay"] = secrets.relay.name
    if any(domain.signing_keys for domain in site.domains.values()):
        mounts["dkim"] = secrets.dkim
    return mounts
