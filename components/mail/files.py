"""Every file of the configuration folder that is not secret, by its path in the pod."""

import re

from components.listeners import LISTENERS, SMTP
from components.mail import accounts, dovecot, postfix, rspamd
from components.names import MAIL_SERVER
from components.settings.site import Site

SRS_PORT, SRS_RECIPIENT_PORT = 10001, 10002  # where postsrsd rewrites senders and recipients, in the image
ALIVE_PORT = 10026  # where Postfix greets the probes, on loopback

# Where the init container sees the files of this configuration, the Secrets (a folder for each) and its programs.
SOURCE_DIR = "/config"
SECRETS_DIR = "/secrets"
SCRIPTS_DIR = "/scripts"
SCRIPTS = ("alive.py", "app_passwords.lua", "assemble.py", "common.py", "own_from.lua", "passwords.py", "pulse.py", "user-patches.sh")

# Read by the scripts in scripts/pod, not by the image.
MAILBOX_LIST = "mailboxes.txt"
DOMAIN_LIST = "domains.txt"
DKIM_LIST = "dkim-keys.txt"
ANY_FROM_LIST = "any-from.txt"
PROXY_LIST = "proxy-listeners.txt"
PULSE_ARGUMENTS = "pulse.txt"
ALIVE_ARGUMENTS = "alive.txt"


def config_files(site: Site) -> dict[str, str]:
    """Path below the configuration folder to text. The init container copies them there and adds what comes from Secrets."""
    extra = site.mail.extra
    files = {
        "postfix-main.cf": postfix.main_cf(site) + "".join(f"{parameter} = {value}\n" for parameter, value in extra.postfix.items()),
        "postfix-master.cf": postfix.master_cf(site),
        "postfix-virtual.cf": accounts.virtual(site),
        postfix.SEND_AS: postfix.send_as(site),
        PROXY_LIST: postfix.proxy_listeners(),
        "dovecot.cf": dovecot.dovecot_cf(site) + (f"{extra.dovecot.rstrip()}\n" if extra.dovecot else ""),
        DOMAIN_LIST: "".join(f"{name}\n" for name in site.domains),
        MAILBOX_LIST: "".join(f"{address}\n" for address in site.mail.mailboxes),
        DKIM_LIST: "".join(f"{key.secret_key(name)}\n" for name, domain in site.domains.items() for key in domain.signing_keys),
    }
    files[ALIVE_ARGUMENTS] = alive_arguments(site)
    if site.monitoring and site.jobs.pushgateway:
        files[PULSE_ARGUMENTS] = pulse_arguments(site, site.jobs.pushgateway)
    if site.mail.app_passwords:
        files["app-passwords.cf"] = dovecot.app_passwords_cf(site, f"{SCRIPTS_DIR}/app_passwords.lua")
    if site.mail.oauth:
        files[dovecot.OAUTH_FILE] = dovecot.oauth_cf(site, site.mail.oauth)
    if site.mail.own_from:
        files[ANY_FROM_LIST] = "".join(f"{address}\n" for address in site.mail.own_from.exempt)
    if site.mail.quotas:
        files["dovecot-quotas.cf"] = accounts.quotas(site)
    files |= {f"rspamd/override.d/{name}": text for name, text in (rspamd.overrides(site) | extra.rspamd).items()}
    files |= accounts.sieve_scripts(site)
    return files


def pulse_arguments(site: Site, pushgateway: str) -> str:
    """What pulse.py is told, one argument a line."""
    listeners = {name: port for s in LISTENERS for name, port in ((s.name, s.port), (f"{s.name}-proxy", s.proxy_port))}
    listeners |= {"rspamd": rspamd.MILTER_PORT} | ({"postsrsd": SRS_PORT} if site.srs else {})
    arguments = [f"--job={MAIL_SERVER}", f"--pushgateway={pushgateway}", f"--controller={rspamd.CONTROLLER_PORT}"]
    return "".join(f"{line}\n" for line in (*arguments, *(f"--listener={name}:{port}" for name, port in listeners.items())))


def alive_arguments(site: Site) -> str:
    """What alive.py is told, one argument a line; user-patches.sh reads the first one, too."""
    ports = {"postfix": ALIVE_PORT, "postscreen": SMTP.port, "postscreen-proxy": SMTP.proxy_port}
    return "".join(f"--{name}={port}\n" for name, port in ports.items()) + f"--account={next(iter(site.mail.mailboxes))}\n"


_ESCAPES = {"_": "__", "/": "_.", "@": "_-"}


def config_map_key(path: str) -> str:
    """A path as a ConfigMap key, which knows neither `/` nor `@`; no two paths share one. The volume's items map it back."""
    return re.sub(r"[^-.a-zA-Z0-9]", lambda match: _ESCAPES.get(match[0], f"_{ord(match[0]):x}_"), path)
