"""What we rely on of the docker-mailserver image: its folders, and the variables that choose what runs in it."""

from components.settings.quantity import in_bytes
from components.settings.site import Site

CONFIG_DIR = "/tmp/docker-mailserver"  # noqa: S108 - where the image reads its configuration
DKIM_DIR = f"{CONFIG_DIR}/rspamd/dkim"
SIEVE_FOLDER = "sieve"  # below CONFIG_DIR; under a name that the image does not install as a mailbox's own script
VMAIL = 5000  # user and group that own all mail (DMS_VMAIL_UID)
TLS_DIR = "/tmp/ssl"  # noqa: S108 - the live pod's path


def environment(site: Site) -> dict[str, str]:
    """The variables of the container: ours, and the site's after them."""
    return own_environment(site) | site.mail.extra.environment


def own_environment(site: Site) -> dict[str, str]:
    """The image's variables. All of its other filters are off: Rspamd does their work, CrowdSec does Fail2ban's."""
    mail = site.mail
    variables = {
        "OVERRIDE_HOSTNAME": site.hostname,
        "POSTMASTER_ADDRESS": f"postmaster@{site.primary}",
        # `none` empties mynetworks: a PROXY header may claim any address, so no address may open a relay.
        "PERMIT_DOCKER": "none",
        "SPOOF_PROTECTION": "1",
        "POSTSCREEN_ACTION": "enforce",
        "ENABLE_DNSBL": "0",
        "POSTFIX_MESSAGE_SIZE_LIMIT": str(in_bytes(mail.message_size_limit)),
        # `manual`: the image copies the files, and its change detector copies them again when they are renewed.
        "SSL_TYPE": "manual",
        "SSL_CERT_PATH": f"{TLS_DIR}/tls.crt",
        "SSL_KEY_PATH": f"{TLS_DIR}/tls.key",
        "TLS_LEVEL": "modern",  # TLS 1.2 and 1.3, for Postfix and Dovecot alike
        "ENABLE_RSPAMD": "1",
        "ENABLE_RSPAMD_REDIS": _flag(mail.rspamd.redis),
        "RSPAMD_LEARN": _flag(mail.rspamd.redis),  # learning has nowhere to go without Redis
        "ENABLE_QUOTAS": _flag(mail.quotas),
        "ENABLE_SRS": _flag(site.srs),
        "ENABLE_MANAGESIEVE": _flag(site.managesieve),
        "ENABLE_AMAVIS": "0",
        "ENABLE_CLAMAV": "0",
        "ENABLE_FAIL2BAN": "0",
        "ENABLE_OAUTH2": "0",  # mail.oauth: the image's own takes any program's token (docs/decisions/oauth.md)
        "ENABLE_OPENDKIM": "0",
        "ENABLE_OPENDMARC": "0",
        "ENABLE_POLICYD_SPF": "0",
        "ENABLE_SPAMASSASSIN": "0",
        "ENABLE_UPDATE_CHECK": "0",  # the settings name the version
    }
    if site.srs:
        # postsrsd leaves only its own domain alone; without this it would rewrite the senders of our other domains.
        variables["SRS_EXCLUDE_DOMAINS"] = ",".join(site.domains)
    if mail.relay:
        variables["DEFAULT_RELAY_HOST"] = mail.relay.next_hop
    return variables


def _flag(value: bool) -> str:
    return "1" if value else "0"
