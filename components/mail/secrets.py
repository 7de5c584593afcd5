"""Which Secrets the mail system needs, and what they are made from."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from components.settings.secrets import StoreKey
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
    for name, keys, template in _needed(site):
        sources = {key: source for key, source in keys.items() if source}
        if sources and (not template or len(sources) == len(keys)):
            yield SecretPlan(name, sources, template)


def handmade_secrets(site: Site) -> dict[str, list[str]]:
    """The Secrets that nothing here makes, with the keys that each must hold."""
    made = {plan.name for plan in secret_plans(site)}
    needed = {name: list(template or keys) for name, keys, template in _needed(site) if keys and name not in made}
    return needed | {site.tls.secret: ["tls.crt", "tls.key"]}


def _needed(site: Site) -> Iterator[tuple[str, dict[str, StoreKey | None], dict[str, str]]]:
    """Each Secret's name, its keys with their sources, and the template over them where the keys in the Secret are others."""
    secrets, retention = site.secrets, site.jobs.retention
    for secret, key, wanted in (
        (secrets.accounts, ACCOUNTS_KEY, True),
        (secrets.aliases, ALIASES_KEY, True),
        (secrets.relay, RELAY_KEY, site.mail.relay is not None),
        (jobs.backup.key, "password", True),
        (secrets.webmail_database, "password", True),
    ):
        if wanted and secret:
            yield secret.name, {key: secret.source}, {}
    # A published key is fetched too, so that a fault in the store shows before its turn to sign.
    dkim = {
        key.secret_key(name): key.source
        for name, domain in site.domains.items()
        for key in domain.dkim
        if key.signs or (key.source and key.stage == "published")
    }
    yield secrets.dkim, dkim, {}
    if secrets.probe:
        # The stored values are wrapped, and an address is no path that `property` could follow: hence a template.
        sources = {"brevo": secrets.probe.brevo, "accounts": secrets.accounts.source}
        template = {
            "BREVO_API_KEY": '{{ .brevo | b64dec | fromJson | dig "api_key" "" }}',
            "EMAIL_MONITOR_IMAP_PASSWORD": f'{{{{ .accounts | fromJson | dig "{secrets.probe.mailbox}" "" }}}}',
        }
        yield secrets.probe.name, sources, template
    if secrets.heartbeats:
        yield secrets.heartbeats.name, {"uptime_kuma": secrets.heartbeats.uptime_kuma, "urls": secrets.heartbeats.urls}, {}
    if retention:
        boxes = sorted({rule.mailbox for rule in retention.rules})
        template = {box.replace("@", "_at_"): f'{{{{ .accounts | fromJson | dig "{box}" "" }}}}' for box in boxes}
        yield secrets.retention, {"accounts": secrets.accounts.source}, template


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
