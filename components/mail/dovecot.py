"""Dovecot: what is put behind the image's own configuration (its local.conf, read last)."""

from components.listeners import IMAPS
from components.mail.image import CONFIG_DIR, SIEVE_FOLDER
from components.mail.trust import edge_networks
from components.settings.site import Site


def dovecot_cf(site: Site) -> str:
    """dovecot.cf, in the syntax of Dovecot 2.3."""
    trusted = " ".join(map(str, edge_networks(site)))
    return f"""\
# A wrong password costs its sender five seconds.
auth_failure_delay = 5s

# Per user and address: all of the webmail's sessions come from one pod.
mail_max_userip_connections = 50

# Whose PROXY header is believed. A peer that is missing here gets nothing, while HAProxy's checks stay green.
haproxy_trusted_networks = {trusted}
service imap-login {{
  inet_listener {IMAPS.name}_proxy {{
    port = {IMAPS.proxy_port}
    ssl = yes
    haproxy = yes
  }}
}}

# What the settings declare for a mailbox comes first, then the script that its user wrote.
plugin {{
  sieve_before2 = file:{CONFIG_DIR}/{SIEVE_FOLDER}/%u.sieve
}}
"""
