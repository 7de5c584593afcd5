"""Dovecot: what is put behind the image's own configuration (its local.conf, read last), in the syntax of the image's Dovecot."""

import re
from collections.abc import Iterator
from urllib.parse import quote

from components.listeners import IMAPS
from components.mail.image import CONFIG_DIR, SIEVE_FOLDER
from components.mail.trust import edge_networks
from components.settings.mail import OAuth
from components.settings.site import Site

_SCRIPTS = f"{CONFIG_DIR}/{SIEVE_FOLDER}"
_SERVES_MANY = {"2.3": "service_count = 0", "2.4": "restart_request_count = unlimited"}
# New with 2.4 is a bound of ten for each mailbox.
_DELIVERIES = {
    "2.3": "",
    "2.4": """\
# Postfix makes at most twenty deliveries at once. One that is refused waits in its queue for five minutes.
lmtp_user_concurrency_limit = unlimited

""",
}
_DECLARED_SIEVE = {
    "2.3": f"""\
plugin {{
  sieve_before2 = file:{_SCRIPTS}/%u.sieve
}}
""",
    "2.4": f"""\
sieve_script declared {{
  type = before
  path = {_SCRIPTS}/%{{user}}.sieve
}}
""",
}
# The image's answers to Postfix, which 16 leaves out: by Dovecot's own, no alias of an external address and no catch-all would get mail.
_QUOTA = {
    "2.3": "",
    "2.4": """
quota_status_success = DUNNO
quota_status_nouser = DUNNO
quota_status_overquota = "552 5.2.2 Mailbox is full"
""",
}
OAUTH_FILE = "oauth.cf"
# The issuer has users without a mailbox here. Without the image's list behind the token, Postfix would send mail for them.
_OAUTH = {
    "2.3": f"""
auth_mechanisms = $auth_mechanisms oauthbearer xoauth2
passdb {{
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = {CONFIG_DIR}/{OAUTH_FILE}
  result_success = continue
  result_failure = return-fail
  result_internalfail = return-fail
}}
passdb {{
  driver = passwd-file
  mechanisms = oauthbearer xoauth2
  args = username_format=%u /etc/dovecot/userdb
  result_failure = return-fail
  result_internalfail = return-fail
}}
""",
    "2.4": f"""
auth_mechanisms {{
  oauthbearer = yes
  xoauth2 = yes
}}
!include {CONFIG_DIR}/{OAUTH_FILE}
passdb accounts {{
  driver = passwd-file
  mechanisms_filter = oauthbearer xoauth2
  passwd_file_path = /etc/dovecot/userdb
  auth_username_format = %{{user}}
  result_failure = return-fail
  result_internalfail = return-fail
}}
""",
}

# Lines that only the other version can read; with most of them Dovecot does not start, the rest it misreads (doc.dovecot.org,
# "Upgrading Dovecot CE from 2.3 to 2.4"). Each with what it is called in the version at hand.
_FOREIGN = {
    "2.3": {
        r"%\{ *\w+ *\|": "%d, %n or another variable of one letter",
        r"^\s*mail_(path|driver)\b": "mail_location",
        r"^\s*ssl_server_\w+": "ssl_cert, ssl_key, ssl_dh",
        r"^\s*auth_allow_cleartext\b": "disable_plaintext_auth",
        r"^\s*(mail_plugins|protocols|sieve_(global_)?extensions|sieve_plugins)\s*\{": "a list on one line behind `=`",
        r"^\s*(passdb|userdb|sieve_script|quota|imapsieve_from)\s+\S+\s*\{": "a block without a name, or plugin { … }",
        r"^\s*quota_(driver|storage_size)\b": "plugin { quota = … }",
        r"^\s*restart_request_count\b": "service_count",
    },
    "2.4": {
        r"^\s*plugin\s*\{": "settings without a block around them",
        r"%[udnh]\b": "%{user}, %{user | domain}, %{user | username}, %{home}",
        r"^\s*mail_location\b": "mail_driver and mail_path",
        r"^\s*ssl_(cert|key|dh|ca|alt_cert|alt_key)\s*=": "ssl_server_cert_file, ssl_server_key_file, ssl_server_dh_file",
        r"=\s*<\s*/": "a setting that ends with _file",
        r"^\s*disable_plaintext_auth\b": "auth_allow_cleartext",
        r"\$mail_plugins\b": "mail_plugins { name = yes }",
        r"^\s*(passdb|userdb)\s*\{": "a block with a name",
        r"^\s*args\s*=\s*(scheme|username_format)": "passwd_file_path and its like",
        r"^\s*service_count\b": "restart_request_count",
    },
}


def dovecot_cf(site: Site) -> str:
    """dovecot.cf, in the syntax of the image's Dovecot."""
    trusted = " ".join(map(str, edge_networks(site)))
    return f"""\
# A wrong password costs its sender five seconds.
auth_failure_delay = 5s

# Per user and address: all of the webmail's sessions come from one pod.
mail_max_userip_connections = 50

# Whose PROXY header is believed. A peer that is missing here gets nothing, while HAProxy's checks stay green.
haproxy_trusted_networks = {trusted}
service imap-login {{
  # One process serves many sessions. By default each takes one, for its TLS, and there are 100: the next client gets no connection.
  {_SERVES_MANY[site.mail.dovecot]}
  inet_listener {IMAPS.name}_proxy {{
    port = {IMAPS.proxy_port}
    ssl = yes
    haproxy = yes
  }}
}}

{_DELIVERIES[site.mail.dovecot]}# What the settings declare for a mailbox comes first, then the script that its user wrote.
{_DECLARED_SIEVE[site.mail.dovecot]}{_QUOTA[site.mail.dovecot] if site.mail.quotas else ""}{
        _OAUTH[site.mail.dovecot] if site.mail.oauth else ""
    }"""


# RFC 7662 says `active` and nothing else of a token that is not valid. 2.4 sends the client's id and secret only as part of the URL
# (HTTP Basic), 2.3 beside it in the form, where Keycloak takes even empty ones for the client's. The init container fills in the
# secret; where it cannot, the issuer refuses the question, and passwords go on.
_ISSUER = {
    "2.3": """\
introspection_mode = post
introspection_url = {url}
client_id = {client}
client_secret=
scope = {scope}
username_attribute = {claim}
active_attribute = active
active_value = true
timeout_msecs = 10000
tls_ca_cert_dir = /etc/ssl/certs
""",
    "2.4": """\
oauth2 {{
  introspection_mode = post
  introspection_url = {url_with_client}
  scope = {scope}
  username_attribute = {claim}
  username_validation_format = %{{user | lower}}
  active_attribute = active
  active_value = true
  http_client_request_timeout = 10s
  ssl_client_ca_dir = /etc/ssl/certs
}}
""",
}


def oauth_cf(site: Site, oauth: OAuth) -> str:
    """oauth.cf: what the issuer is asked about a token, and what its answer must be, still without the client's secret."""
    url = oauth.introspection_url
    return _ISSUER[site.mail.dovecot].format(
        url=url,
        url_with_client=url.replace("://", f"://{quote(oauth.client_id, safe='')}:@"),
        client=oauth.client_id,
        scope=oauth.scope,
        claim=oauth.address_claim,
    )


# Not in the cache: by its default key, the user, an app password would then do for ManageSieve too. 2.3 cannot do without a key.
_APP_PASSWORDS = {
    "2.3": """\
passdb {{
  driver = lua
  mechanisms = plain login
  args = file={script} cache_key=%s/%u
}}
""",
    "2.4": """\
passdb app_passwords {{
  driver = lua
  mechanisms_filter = plain login
  lua_file = {script}
  use_worker = yes
  use_cache = no
}}
""",
}
# It never lets anyone in: after `continue-fail` the image's own list still wants the password. After a plain `continue` Dovecot would
# take it for verified.
_INSIDE = {
    "2.3": """\
passdb {{
  driver = static
  mechanisms = plain login
  args = nopassword=y allow_nets={networks}
  result_success = continue-fail
  result_failure = return-fail
}}
""",
    "2.4": """\
passdb inside {{
  driver = static
  mechanisms_filter = plain login
  fields {{
    nopassword = yes
    allow_nets = {networks}
  }}
  result_success = continue-fail
  result_failure = return-fail
}}
""",
}


def app_passwords_cf(site: Site, script: str) -> str:
    """What comes before the image's own list of passwords, first the app passwords by the Lua `script`."""
    version, app_passwords = site.mail.dovecot, site.mail.app_passwords
    text = _APP_PASSWORDS[version].format(script=script)
    if app_passwords and app_passwords.required_outside:
        text += _INSIDE[version].format(networks=",".join(map(str, site.cluster.pod_networks)))
    return text


def foreign_lines(site: Site) -> Iterator[tuple[str, str, str]]:
    """Version, line and remedy for each of the site's own lines that the image's Dovecot cannot read."""
    version = site.mail.dovecot
    for line in (site.mail.extra.dovecot or "").splitlines():
        written = line.partition("#")[0]
        for pattern, instead in _FOREIGN[version].items():
            if re.search(pattern, written):
                yield version, line.strip(), instead
                break
