"""Postfix: what is appended to the image's main.cf, and the PROXY listeners that user-patches.sh adds to its master.cf."""

from components.listeners import LISTENERS, SUBMISSION, SUBMISSIONS
from components.mail.image import CONFIG_DIR
from components.mail.trust import Net, edge_networks, trusted_relay_networks
from components.settings.site import Site

SEND_AS = "postfix-send-as.cf"


def main_cf(site: Site) -> str:
    """postfix-main.cf: the image appends it to its own and the last word wins; values replace, they never merge."""
    relays = trusted_relay_networks(site)
    sender_checks = [
        "permit_sasl_authenticated",
        "permit_mynetworks",
        *([f"check_client_access {_inline_cidr(relays, 'OK')}"] if relays else []),
        "reject_unknown_sender_domain",
        *(["reject_unknown_client_hostname"] if site.mail.require_reverse_name else []),
    ]
    lines = [
        "# TLS before any password, on every listener.",
        "smtpd_tls_auth_only = yes",
        "",
        "# Limits per client and minute. The edge's checks come from its own addresses, twice in two seconds and node.",
        "anvil_rate_time_unit = 60s",
        "smtpd_client_connection_rate_limit = 10",
        "smtpd_client_auth_rate_limit = 10",
        "smtpd_client_message_rate_limit = 30",
        f"smtpd_client_event_limit_exceptions = {' '.join(map(_match_pattern, (*edge_networks(site), *relays)))}",
        "",
        "# Mail waits at its sender while Rspamd is away: neither unscanned in nor unsigned out.",
        "milter_default_action = tempfail",
        "",
        "# A service whose process was killed is back after this; Postfix's own pause is a minute.",
        "service_throttle_time = 5s",
        "",
        "# External senders need a name; our own relays have checked theirs already. OK here opens no relay.",
        f"dms_smtpd_sender_restrictions = {', '.join(sender_checks)}",
        "",
        "# An account may send as itself, as its aliases, and as what it was granted.",
        "smtpd_sender_login_maps = unionmap:{ texthash:/etc/postfix/virtual, hash:/etc/aliases, "
        f"pcre:/etc/postfix/maps/sender_login_maps.pcre, pcre:/etc/postfix/regexp, texthash:{CONFIG_DIR}/{SEND_AS} }}",
    ]
    if relays:
        lines += [
            "",
            "# A relay of ours has greeted its own clients; it is not tested again.",
            f"postscreen_access_list = permit_mynetworks, {_inline_cidr(relays, 'permit')}",
        ]
    if site.mail.relay:
        lines += [
            "",
            "# The password goes to the relay only if its certificate bears its name.",
            f"smtp_tls_policy_maps = inline:{{{{{site.mail.relay.next_hop}=secure match={site.mail.relay.host}}}}}",
        ]
    if site.mail.oauth:
        lines += [
            "",
            "# A token comes in one line, of up to so many bytes (RFC 4954, section 4).",
            "line_length_limit = 12288",
        ]
    return "\n".join(lines) + "\n"


def master_cf(site: Site) -> str:
    """postfix-master.cf: options of stock services (`postconf -P`); user-patches.sh makes the PROXY twins of them afterwards."""
    limit = site.mail.sending_limit
    # Rspamd lets an account's first message pass, whatever its number of recipients.
    return "".join(f"{s.name}/inet/smtpd_recipient_limit={limit.at_once}\n" for s in (SUBMISSIONS, SUBMISSION)) if limit else ""


def send_as(site: Site) -> str:
    """Who else may send as an address: `address login[, login…]`, one line per granted address."""
    granted: dict[str, list[str]] = {}
    for login, mailbox in site.mail.mailboxes.items():
        for address in mailbox.send_as:
            granted.setdefault(address, []).append(login)
    return "".join(f"{address} {', '.join(logins)}\n" for address, logins in granted.items())


def proxy_listeners() -> str:
    """What user-patches.sh adds to master.cf: `stock-service port syslog-name`, one line for each PROXY twin."""
    return "".join(f"{twin.name} {twin.proxy_port} postfix/smtpd-proxy{twin.port}\n" for twin in LISTENERS if twin.protocol == "smtp")


def _inline_cidr(networks: tuple[Net, ...], action: str) -> str:
    return "cidr:{" + ", ".join(f"{{{network} {action}}}" for network in networks) + "}"


def _match_pattern(network: Net) -> str:
    """As Postfix's match lists want it: IPv6 in brackets (postconf(5), mynetworks)."""
    if network.version == 6:
        return f"[{network.network_address}]/{network.prefixlen}"
    return str(network)
