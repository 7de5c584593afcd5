"""Which Secrets the mail system needs, and what they are made from."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from components.settings.secrets import StoreKey
from components.settings.site import Site

ACCOUNTS_KEY = "accounts"
APP_PASSWORDS_KEY = "app_passwords"
OAUTH_KEY = "client_secret"
ALIASES_KEY = "aliases"
RELAY_KEY = "sasl_passwd"
API_KEY_TEMPLATES = {"plain": "{{ .api_key }}", "base64-json": '{{ .api_key | b64dec | fromJson | dig "api_key" "" }}'}


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
    if site.tls.cluster_issuer is None:
        needed[site.tls.secret] = ["tls.crt", "tls.key"]
    if site.webmail and site.webmail.ingress.secret and site.webmail.ingress.cluster_issuer is None:
        needed[site.webmail.ingress.secret] = ["tls.crt", "tls.key"]
    others = [area.pod for area in (site.dns and site.dns.policy_server, site.webmail, site.edge.bans) if area]
    for pod in (site.mail.pod, site.jobs.pod, *others):
        needed |= {name: [".dockerconfigjson"] for name in pod.image_pull_secrets}
    return needed


def _needed(site: Site) -> Iterator[tuple[str, dict[str, StoreKey | None], dict[str, str]]]:
    """Each Secret's name, its keys with their sources, and the template over them where the keys in the Secret are others."""
    mail, jobs = site.mail, site.jobs
    for secret, key in (
        (mail.accounts, ACCOUNTS_KEY),
        (mail.app_passwords, APP_PASSWORDS_KEY),
        (mail.oauth and mail.oauth.client_secret, OAUTH_KEY),
        (mail.stored_aliases, ALIASES_KEY),
        (mail.relay and mail.relay.credentials, RELAY_KEY),
        (jobs.backup and jobs.backup.key, "password"),
        (site.edge.bans and site.edge.bans.crowdsec and site.edge.bans.crowdsec.api_key, "api_key"),
        (site.webmail and site.webmail.session_key, "des_key"),
        (site.webmail and site.webmail.extra_secret, "extra.php"),
        (site.webmail.database.password if site.webmail and site.webmail.database.type != "sqlite" else None, "password"),
    ):
        if secret:
            yield secret.name, {key: secret.source}, {}
    # A published key is fetched too, so that a fault in the store shows before its turn to sign.
    dkim = {
        key.secret_key(name): key.source
        for name, domain in site.domains.items()
        for key in domain.dkim
        if key.signs or (key.source and key.stage == "published")
    }
    yield mail.dkim.name, dkim, {}
    if jobs.probe:
        secret = jobs.probe.credentials
        sources = {"api_key": secret.source, "accounts": mail.accounts.source}
        template = {
            secret.api_key: API_KEY_TEMPLATES[secret.encoding],
            secret.password: _password_of(jobs.probe.mailbox),
        }
        yield secret.name, sources, template
    if jobs.heartbeats:
        yield jobs.heartbeats.name, {"uptime_kuma": jobs.heartbeats.uptime_kuma, "urls": jobs.heartbeats.urls}, {}
    if jobs.retention:
        boxes = sorted({rule.mailbox for rule in jobs.retention.rules})
        template = {box.replace("@", "_at_"): _password_of(box) for box in boxes}
        yield jobs.retention.passwords.name, {"accounts": mail.accounts.source}, template
    if jobs.reports:
        template = {"password": _password_of(jobs.reports.mailbox)}
        yield jobs.reports.password.name, {"accounts": mail.accounts.source}, template


def _password_of(mailbox: str) -> str:
    """Template of one entry of the accounts' JSON: an ExternalSecret's `property` cannot follow an address."""
    return f'{{{{ .accounts | fromJson | dig "{mailbox}" "" }}}}'


def mounted_secrets(site: Site) -> dict[str, str]:
    """The Secrets that the init container reads: its folder for each, and the Secret's name."""
    mail = site.mail
    mounts = {"accounts": mail.accounts.name}
    if mail.app_passwords:
        mounts["app-passwords"] = mail.app_passwords.name
    if mail.oauth:
        mounts["oauth"] = mail.oauth.client_secret.name
    if mail.stored_aliases:
        mounts["aliases"] = mail.stored_aliases.name
    if mail.relay:
        mounts["relay"] = mail.relay.credentials.name
    if any(domain.signing_keys for domain in site.domains.values()):
        mounts["dkim"] = mail.dkim.name
    return mounts
