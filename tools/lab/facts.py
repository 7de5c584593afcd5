"""What docker-mailserver 15.1.0 itself sets underneath our files: name, value, why it matters.

Read in the image's own configuration and start-up scripts (target/ of its source). Only what mail can notice is listed; everything
else stays at the Debian packages' defaults, which are the image's too. image.py applies the facts in the image's order.

`make lab-compare STACK=prod` prints where a running server differs; the stack's own overrides are among the lines.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Fact(NamedTuple):
    """`name` is a parameter, or a path to one: `service auth > unix_listener auth-userdb > mode`."""

    name: str
    value: str
    why: str


def nested(rows: Iterable[Fact], assign: str = " = ", end: str = "") -> str:
    """Facts with paths as blocks: `service auth > mode` becomes `service auth {` … `}`. Dovecot's syntax, and Rspamd's with `;`."""
    tree: dict[str, Any] = {}
    for row in rows:
        *blocks, name = row.name.split(" > ")
        place = tree
        for block in blocks:
            place = place.setdefault(block, {})
        place[name] = row.value

    def text(branch: Mapping[str, Any], indent: str) -> str:
        lines = ""
        for name, value in branch.items():
            if isinstance(value, Mapping):
                lines += f"{indent}{name} {{\n{text(value, indent + '  ')}{indent}}}\n"
            else:
                lines += f"{indent}{name}{assign}{value}{end}\n"
        return lines

    return text(tree, "")


_TLS_PROTOCOLS = "!SSLv2,!SSLv3,!TLSv1,!TLSv1.1"
_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "DHE-RSA-AES128-GCM-SHA256",
        "DHE-RSA-AES256-GCM-SHA384",
    )
)

POSTFIX_MAIN = (
    Fact("compatibility_level", "3.6", "decides the defaults of all that is not set"),
    Fact("smtpd_banner", "$myhostname ESMTP", "probes read it"),
    Fact("biff", "no", "no local users"),
    Fact("append_dot_mydomain", "no", "an address is not completed"),
    Fact("smtputf8_enable", "no", "Dovecot cannot deliver such mail"),
    Fact("alias_maps", "hash:/etc/aliases", "where root's mail goes"),
    Fact("alias_database", "hash:/etc/aliases", "newaliases"),
    Fact("mydestination", "$myhostname, localhost.$mydomain, localhost", "the host name itself is not a mail domain"),
    Fact("mynetworks", "127.0.0.0/8 [::1]/128 [fe80::]/64", "emptied by PERMIT_DOCKER=none; with it, a forged header opens a relay"),
    Fact("recipient_delimiter", "+", "user+detail reaches user"),
    Fact("inet_interfaces", "all", "the pod's address is not known beforehand"),
    Fact("inet_protocols", "all", "IPv6"),
    Fact("mailbox_size_limit", "0", "may not be below message_size_limit"),
    Fact("smtpd_tls_security_level", "may", "STARTTLS is offered on 25"),
    Fact("smtpd_tls_loglevel", "1", "one log line for each handshake"),
    Fact("smtp_tls_security_level", "may", "raised to encrypt by the relay's password file"),
    Fact("smtp_tls_loglevel", "1", "the log says Verified or not"),
    Fact("tls_ssl_options", "NO_COMPRESSION, NO_RENEGOTIATION", "what a handshake allows"),
    Fact("tls_high_cipherlist", _CIPHERS, "TLS_LEVEL=modern"),
    Fact("tls_preempt_cipherlist", "yes", "TLS_LEVEL=modern"),
    Fact("smtpd_tls_protocols", _TLS_PROTOCOLS, "no TLS below 1.2 on 25"),
    Fact("smtp_tls_protocols", _TLS_PROTOCOLS, "nor outgoing"),
    Fact("smtpd_tls_mandatory_protocols", _TLS_PROTOCOLS, "nor on the submission ports"),
    Fact("smtpd_tls_mandatory_ciphers", "high", "the list above"),
    Fact("smtpd_tls_exclude_ciphers", "aNULL, SEED, CAMELLIA, RSA+AES, SHA1", "also where a client asks for them"),
    Fact("smtpd_tls_CApath", "/etc/ssl/certs", "client certificates; none is asked for"),
    Fact("smtpd_tls_dh1024_param_file", "/etc/postfix/dhparams.pem", "RFC 7919 group"),
    Fact("smtp_tls_CApath", "/etc/ssl/certs", "a relay's certificate is checked against the system's authorities"),
    Fact("smtpd_helo_required", "yes", "clients must greet"),
    Fact("smtpd_delay_reject", "yes", "refusals come at RCPT"),
    Fact("smtpd_helo_restrictions", "permit_mynetworks, reject_invalid_helo_hostname, permit", "syntax of the greeting"),
    Fact("smtpd_relay_restrictions", "permit_mynetworks permit_sasl_authenticated defer_unauth_destination", "port 25 relays nothing"),
    Fact(
        "smtpd_recipient_restrictions",
        "permit_sasl_authenticated, permit_mynetworks, reject_unauth_destination, "
        "reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, reject_unknown_recipient_domain",
        "what a recipient has to pass",
    ),
    Fact(
        "smtpd_client_restrictions",
        "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
        "no open relay",
    ),
    Fact("smtpd_sender_restrictions", "$dms_smtpd_sender_restrictions", "the list that postfix-main.cf replaces"),
    Fact(
        "dms_smtpd_sender_restrictions",
        "permit_sasl_authenticated, permit_mynetworks, reject_unknown_sender_domain",
        "checks on an external sender",
    ),
    Fact(
        "mua_sender_restrictions",
        "reject_authenticated_sender_login_mismatch, $dms_smtpd_sender_restrictions",
        "SPOOF_PROTECTION=1 on the submission ports",
    ),
    Fact(
        "smtpd_data_restrictions",
        "permit_mynetworks, permit_sasl_authenticated, reject_unauth_pipelining",
        "a check that talks too early is refused",
    ),
    Fact("smtpd_discard_ehlo_keywords", "silent-discard, dsn", "no DSN on 25"),
    Fact("disable_vrfy_command", "yes", "no address harvesting"),
    Fact("smtpd_forbid_bare_newline", "yes", "SMTP smuggling"),
    Fact("postscreen_greet_action", "enforce", "who talks before the greeting is refused"),
    Fact("postscreen_bare_newline_action", "enforce", "SMTP smuggling"),
    Fact("postscreen_dnsbl_action", "ignore", "ENABLE_DNSBL=0"),
    Fact("smtpd_sasl_auth_enable", "no", "passwords only on the submission ports"),
    Fact("smtpd_sasl_path", "/dev/shm/sasl-auth.sock", "Dovecot listens there, outside of any chroot"),  # noqa: S108
    Fact("smtpd_sasl_type", "dovecot", "the same accounts as IMAP"),
    Fact("smtpd_sasl_security_options", "noanonymous", "no anonymous login"),
    Fact("smtpd_sasl_local_domain", "$mydomain", "realm"),
    Fact("broken_sasl_auth_clients", "yes", "old clients"),
    Fact("virtual_mailbox_domains", "/etc/postfix/vhost", "domains of accounts and aliases"),
    Fact("virtual_mailbox_maps", "texthash:/etc/postfix/vmailbox", "the accounts"),
    Fact("virtual_alias_maps", "texthash:/etc/postfix/virtual", "the aliases"),
    Fact("virtual_transport", "lmtp:unix:/var/run/dovecot/lmtp", "Dovecot delivers"),
    Fact("milter_protocol", "6", "Rspamd's"),
    Fact("milter_default_action", "accept", "passes mail unscanned while Rspamd is away, unless postfix-main.cf says otherwise"),
    Fact("non_smtpd_milters", "", "what Sieve redirects is not signed"),
    Fact("header_checks", "pcre:/etc/postfix/maps/header_checks.pcre", "empty in the image"),
    Fact(
        "smtp_header_checks", "pcre:/etc/postfix/maps/sender_header_filter.pcre", "what outgoing mail loses; it must not break a signature"
    ),
)

# postconf -M takes the first six columns in this order: private unprivileged chroot wakeup maxproc command.
POSTFIX_MASTER = (
    Fact("smtp/inet", "n - n - 1 postscreen", "postscreen greets on 25"),
    Fact("smtpd/pass", "- - n - - smtpd", "and hands over to it"),
    Fact("tlsproxy/unix", "- - n - 0 tlsproxy", "postscreen's TLS"),
    Fact("dnsblog/unix", "- - n - 0 dnsblog", "postscreen's lookups"),
    Fact("submission/inet", "n - n - - smtpd", "587"),
    Fact("submissions/inet", "n - n - - smtpd", "465"),
    Fact("pickup/fifo", "n - n 60 1 pickup", "mail of the server's own programs"),
    Fact("sender-cleanup/unix", "n - n - 0 cleanup", "strips what would give a client's software away"),
)
_SUBMISSION = (
    Fact("smtpd_sasl_auth_enable", "yes", "passwords"),
    Fact("smtpd_sasl_type", "dovecot", "checked by Dovecot"),
    Fact("smtpd_reject_unlisted_recipient", "no", "any recipient"),
    Fact("smtpd_sasl_authenticated_header", "yes", "the login is in the Received header"),
    Fact("smtpd_client_restrictions", "permit_sasl_authenticated,reject", "nothing without a password"),
    Fact("smtpd_relay_restrictions", "permit_sasl_authenticated,reject", "nothing without a password"),
    Fact("smtpd_sender_restrictions", "$mua_sender_restrictions", "spoofing"),
    Fact("smtpd_discard_ehlo_keywords", "", "clients may ask for DSN"),
    Fact("milter_macro_daemon_name", "ORIGINATING", "Rspamd knows who submits"),
    Fact("cleanup_service_name", "sender-cleanup", "see above"),
)
POSTFIX_SERVICE_OPTIONS = {
    "submission/inet": (
        Fact("syslog_name", "postfix/submission", "parsers rely on it"),
        Fact("smtpd_tls_security_level", "encrypt", "nothing before STARTTLS"),
        *_SUBMISSION,
    ),
    "submissions/inet": (
        Fact("syslog_name", "postfix/submissions", "parsers rely on it"),
        Fact("smtpd_tls_wrappermode", "yes", "TLS from the first byte"),
        *_SUBMISSION,
    ),
    "pickup/fifo": (
        Fact("content_filter", "", "not filtered twice"),
        Fact("receive_override_options", "no_header_body_checks", "mail of the server's own programs"),
    ),
    "sender-cleanup/unix": (
        Fact("syslog_name", "postfix/sender-cleanup", "parsers rely on it"),
        Fact("header_checks", "pcre:/etc/postfix/maps/sender_header_filter.pcre", "what outgoing mail loses"),
    ),
}

# /etc/postfix/maps, in the order in which the image asks.
HEADER_FILTER = (
    Fact(r"/^\s*Received:.*with ESMTPSA/", "IGNORE", "the submitter's address does not leave the server"),
    Fact(r"/^\s*X-Originating-IP:/", "IGNORE", "nor does it here"),
    Fact(r"/^\s*X-Mailer:/", "IGNORE", "nor his software; it goes before the signature is made"),
    Fact(r"/^\s*Mime-Version: 1.0.*/", "REPLACE MIME-Version: 1.0", "a changed header that a signature may cover"),
    Fact(r"/^\s*User-Agent/", "IGNORE", "his software"),
    Fact(r"/^\s*Received: from.*127.0.0.1/", "IGNORE", "the webmail's hop"),
    Fact(r"/^\s*Message-Id:/i", "PREPEND X-MS-Reactions: disallow", "an added header that a signature may cover"),
)
SENDER_LOGIN = Fact("/^(.*)$/", "${1}", "an account may send as itself")

DOVECOT = (
    Fact("protocols", "imap lmtp", "POP3 is off"),
    Fact("listen", "*, ::", "IPv6"),
    Fact("auth_mechanisms", "plain login", "behind TLS only"),
    Fact("disable_plaintext_auth", "yes", "Dovecot's default"),
    Fact("auth_verbose", "yes", "each failed login is in the log with its address"),
    Fact("auth_verbose_passwords", "sha1:6", "a hint of the wrong password, never the password"),
    Fact("mail_home", "/var/mail/%d/%n/home/", "Sieve scripts live there"),
    Fact("mail_location", "maildir:/var/mail/%d/%n", "what backup and retention read"),
    Fact("mail_privileged_group", "docker", "owner of the mailboxes"),
    Fact("maildir_stat_dirs", "yes", "a file in a mailbox's folder is not a mailbox"),
    Fact("stats_writer_socket_path", "", "no statistics socket, which Postfix could not open"),
    Fact("ssl", "required", "Debian's default, with the image's certificate"),
    Fact("ssl_dh", "</etc/dovecot/dh.pem", "RFC 7919 group"),
    Fact("ssl_min_protocol", "TLSv1.2", "TLS_LEVEL=modern"),
    Fact("ssl_cipher_list", _CIPHERS, "TLS_LEVEL=modern"),
    Fact("ssl_prefer_server_ciphers", "yes", "TLS_LEVEL=modern"),
    Fact("namespace inbox > inbox", "yes", "one namespace"),
    *(
        Fact(f"namespace inbox > mailbox {name} > {setting}", value, "made at the first login")
        for name in ("Drafts", "Junk", "Trash", "Sent")
        for setting, value in (("auto", "subscribe"), ("special_use", rf"\{name}"))
    ),
    Fact("passdb > driver", "passwd-file", "accounts are a file"),
    Fact("passdb > mechanisms", "plain login", "a token is not compared with passwords"),
    Fact("passdb > args", "scheme=SHA512-CRYPT username_format=%u /etc/dovecot/userdb", "a hash without {SCHEME} is SHA512-CRYPT"),
    Fact("userdb > driver", "passwd-file", "accounts are a file"),
    Fact("userdb > args", "username_format=%u /etc/dovecot/userdb", "the same"),
    Fact("userdb > default_fields", "uid=docker gid=docker home=/var/mail/%d/%u/home/", "owner"),
    Fact("service imap-login > chroot", "", "a container is enough"),
    Fact("service anvil > chroot", "", "a container is enough"),
    Fact("service imap-login > inet_listener imap > port", "143", "plain IMAP listens in the pod; the NetworkPolicy keeps it shut"),
    Fact("service imap-login > inet_listener imaps > port", "993", "the stock listener"),
    Fact("service imap-login > inet_listener imaps > ssl", "yes", "TLS from the first byte"),
    Fact("service lmtp > unix_listener lmtp > mode", "0660", "Postfix delivers here"),
    Fact("service lmtp > unix_listener lmtp > group", "postfix", "Postfix delivers here"),
    Fact("service auth > unix_listener auth-userdb > mode", "0666", "LMTP asks here"),
    Fact("service auth > unix_listener auth-userdb > user", "docker", "LMTP asks here"),
    Fact("service auth > unix_listener auth-userdb > group", "docker", "LMTP asks here"),
    Fact("service auth > unix_listener auth-master > mode", "0600", "for master users"),
    Fact("service auth > unix_listener auth-master > user", "docker", "for master users"),
    Fact("service auth > unix_listener auth-master > group", "docker", "for master users"),
    Fact("service auth > unix_listener /dev/shm/sasl-auth.sock > mode", "0660", "Postfix asks here"),
    Fact("service auth > unix_listener /dev/shm/sasl-auth.sock > user", "postfix", "Postfix asks here"),
    Fact("service auth > unix_listener /dev/shm/sasl-auth.sock > group", "postfix", "Postfix asks here"),
    Fact("protocol lmtp > mail_plugins", "$mail_plugins sieve", "Sieve runs at delivery"),
    Fact("lda_mailbox_autocreate", "yes", "Sieve files into folders that do not exist yet"),
    Fact("lda_mailbox_autosubscribe", "yes", "and clients see them"),
    Fact("postmaster_address", "$POSTMASTER_ADDRESS", "sender of Sieve's refusals"),
    Fact("hostname", "$HOSTNAME", "in their Message-Id"),
    Fact("plugin > sieve", "~/.dovecot.sieve", "a mailbox's own script"),
    Fact("plugin > sieve_dir", "~/sieve", "further scripts"),
    Fact("plugin > sieve_before", "/usr/lib/dovecot/sieve-global/before/", "empty"),
    Fact("plugin > sieve_after", "/usr/lib/dovecot/sieve-global/after/", "spam to Junk"),
    Fact("plugin > sieve_extensions", "+notify +imapflags +special-use +vnd.dovecot.pipe +vnd.dovecot.filter", "what a script may require"),
    Fact("plugin > sieve_plugins", "sieve_imapsieve sieve_extprograms", "learning from moves"),
    Fact("plugin > sieve_filter_bin_dir", "/usr/lib/dovecot/sieve-filter", "empty"),
    Fact("plugin > sieve_pipe_bin_dir", "/usr/lib/dovecot/sieve-pipe", "rspamc"),
)
# With ENABLE_MANAGESIEVE.
DOVECOT_MANAGESIEVE = (
    Fact("protocols", "imap lmtp sieve", "ManageSieve is on"),
    Fact("service managesieve-login > inet_listener sieve > port", "4190", "RFC 5804"),
)
# With RSPAMD_LEARN.
DOVECOT_LEARN = (
    Fact("protocol imap > mail_plugins", "$mail_plugins imap_sieve", "a move to or from Junk is seen"),
    Fact("plugin > imapsieve_mailbox1_name", "Junk", "moved to Junk"),
    Fact("plugin > imapsieve_mailbox1_causes", "COPY", "moved to Junk"),
    Fact("plugin > imapsieve_mailbox1_before", "file:/usr/lib/dovecot/sieve-pipe/learn-spam.sieve", "moved to Junk"),
    Fact("plugin > imapsieve_mailbox2_name", "INBOX", "moved back"),
    Fact("plugin > imapsieve_mailbox2_from", "Junk", "moved back"),
    Fact("plugin > imapsieve_mailbox2_causes", "COPY", "moved back"),
    Fact("plugin > imapsieve_mailbox2_before", "file:/usr/lib/dovecot/sieve-pipe/learn-ham.sieve", "moved back"),
)
SPAM_TO_JUNK = """\
require ["fileinto", "special-use"];
if anyof (header :contains "X-Spam-Flag" "YES", header :contains "X-Spam" "Yes") {
  fileinto :specialuse "\\\\Junk" "Junk";
}
"""


def learn_script(verdict: str) -> str:
    """The Sieve script that a move runs; `verdict` is learn_spam or learn_ham."""
    return f'require ["vnd.dovecot.pipe", "copy", "imapsieve"];\npipe :copy "rspamc" ["-h", "127.0.0.1:11334", "{verdict}"];\n'


_POLICY_WEIGHTS = {
    "R_SPF_ALLOW": -1,
    "R_SPF_NA": 1.5,
    "R_SPF_NEUTRAL": 1.5,
    "R_SPF_SOFTFAIL": 2.5,
    "R_SPF_DNSFAIL": 2.5,
    "R_SPF_FAIL": 4.5,
    "R_SPF_PERMFAIL": 4.5,
    "R_DKIM_ALLOW": -1,
    "R_DKIM_NA": 1,
    "R_DKIM_TEMPFAIL": 1.5,
    "R_DKIM_PERMFAIL": 4.5,
    "R_DKIM_REJECT": 4.5,
    "DMARC_POLICY_ALLOW": -1,
    "DMARC_NA": 0.5,
    "DMARC_POLICY_SOFTFAIL": 1.5,
    "DMARC_POLICY_QUARANTINE": 3,
    "DMARC_POLICY_REJECT": 5.5,
}
# Files of /etc/rspamd/local.d; ours in override.d are stronger.
RSPAMD = {
    "actions.conf": (
        Fact("greylist", "4", "points"),
        Fact("add_header", "6", "points that put mail into Junk"),
        Fact("reject", "11", "points"),
        Fact("rewrite_subject", "null", "never"),
    ),
    "greylist.conf": (Fact("enabled", "false", "RSPAMD_GREYLISTING=0"),),
    "hfilter_group.conf": (Fact("symbols > HFILTER_HOSTNAME_UNKNOWN > score", "6", "an address without a name goes to Junk"),),
    "logging.inc": (Fact("type", '"console"', "into the log folder"), Fact("level", '"silent"', "it says nothing by itself")),
    "milter_headers.conf": (Fact("extended_spam_headers", "true", "X-Spamd-Result and its like are in the mail"),),
    "options.inc": (
        Fact("pidfile", "false", "runs in the foreground"),
        Fact("soft_reject_on_timeout", "true", "a late verdict defers mail"),
        Fact("local_networks", '"127.0.0.1/8, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"', "not scanned unless something says so"),
    ),
    "policies_group.conf": tuple(
        Fact(f"symbols > {symbol} > weight", str(weight), "points of SPF, DKIM and DMARC") for symbol, weight in _POLICY_WEIGHTS.items()
    ),
    "settings.conf": (
        Fact("authenticated > priority", "high", "our own users' mail"),
        Fact("authenticated > authenticated", "yes", "our own users' mail"),
        Fact("authenticated > apply > groups_enabled", "[dkim]", "is signed and not scanned"),
    ),
    "worker-controller.inc": (Fact("bind_socket", '"0.0.0.0:11334"', "learning; our override keeps it on loopback"),),
    "worker-normal.inc": (Fact("enabled", "false", "the proxy scans by itself"), Fact("bind_socket", '"127.0.0.1:11333"', "off")),
    "worker-proxy.inc": (
        Fact("bind_socket", '"127.0.0.1:11332"', "Postfix's milter"),
        Fact("milter", "yes", "speaks its protocol"),
        Fact("timeout", "120s", "how long Postfix may wait"),
        Fact('upstream "local" > default', "yes", "scans by itself"),
        Fact('upstream "local" > self_scan', "yes", "scans by itself"),
        Fact("count", "2", "processes"),
        Fact("max_retries", "5", "tries"),
        Fact("discard_on_reject", "false", "a refusal is told"),
        Fact("quarantine_on_reject", "false", "a refusal is told"),
        Fact("spam_header", '"X-Spam"', "what the Junk script looks for"),
    ),
}
RSPAMD_DISABLED = ("clickhouse", "elastic", "reputation", "spamassassin", "url_redirector", "metric_exporter")
# With ENABLE_RSPAMD_REDIS.
RSPAMD_REDIS = {
    "redis.conf": (Fact("servers", '"127.0.0.1:6379"', "the image's own Redis"), Fact("expand_keys", "true", "host name in keys")),
    "history_redis.conf": (Fact("key_prefix", '"rs_history{{COMPRESS}}"', "pods change their names"),),
}
REDIS = (
    Fact("bind", "127.0.0.1", "inside only"),
    Fact("port", "6379", "as above"),
    Fact("daemonize", "no", "runs in the foreground"),
    Fact("dir", "/var/lib/redis", "a link into the state volume"),
    Fact("dbfilename", "dms-dump.rdb", "what the backup holds"),
    Fact("loglevel", "warning", "quiet"),
)

POSTSRSD = (
    Fact("SRS_DOMAIN", "$DOMAINNAME", "rewritten senders are in the primary domain"),
    Fact("SRS_SEPARATOR", "=", "srs0=…"),
    Fact("SRS_SECRET", "/etc/postsrsd.secret", "a link into the state volume, so that old bounces still come home"),
    Fact("SRS_FORWARD_PORT", "10001", "sender_canonical_maps; while nothing answers, every mail is refused with 451"),
    Fact("SRS_REVERSE_PORT", "10002", "recipient_canonical_maps"),
    Fact("RUN_AS", "postsrsd", "user"),
    Fact("SRS_EXCLUDE_DOMAINS", "$SRS_EXCLUDE_DOMAINS", "our own senders stay as they are"),
)
# With ENABLE_SRS.
POSTFIX_SRS = (
    Fact("sender_canonical_maps", "tcp:localhost:10001", "rewrites"),
    Fact("sender_canonical_classes", "envelope_sender", "the envelope only"),
    Fact("recipient_canonical_maps", "tcp:localhost:10002", "and back"),
    Fact("recipient_canonical_classes", "envelope_recipient,header_recipient", "and back"),
)

# Supervisor's command lines (its conf.d); all run in the foreground. postsrsd is found through PATH.
COMMANDS = {
    "rsyslog": ("/usr/sbin/rsyslogd", "-n"),
    "dovecot": ("/usr/sbin/dovecot", "-F", "-c", "/etc/dovecot/dovecot.conf"),
    "rspamd-redis": ("redis-server", "/etc/redis/redis.conf"),
    "rspamd": ("/usr/bin/rspamd", "--no-fork", "--user=_rspamd", "--group=_rspamd"),
    "postsrsd": ("/bin/bash", "-c", r"env $(grep -vE '^(#.*|\s*)$' /etc/default/postsrsd) postsrsd -e -p /var/run/postsrsd.pid"),
    "postfix": ("/usr/sbin/postfix", "start-fg"),
}
