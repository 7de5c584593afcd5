"""Facts that differ between the image's major versions. 16: Dovecot 2.4 in its own syntax, Postfix 3.10, Rspamd's Redis.

Read in the image's source at its change to Debian 13; facts.py has 15's, and all that is common.
"""

from collections.abc import Mapping
from typing import NamedTuple

from tools.lab import facts
from tools.lab.facts import Fact

Facts = tuple[Fact, ...]


class Major(NamedTuple):
    """What the set-up takes from here."""

    dovecot: Facts
    dovecot_learn: Facts
    dovecot_tls: Facts
    junk_script: str
    postfix_main: Facts
    rspamd_redis: Mapping[str, Facts]


_SAME = (
    *("protocols", "listen", "auth_mechanisms", "auth_verbose", "auth_verbose_passwords", "mail_privileged_group", "maildir_stat_dirs"),
    *("stats_writer_socket_path", "ssl", "ssl_min_protocol", "ssl_cipher_list", "lda_mailbox_autocreate", "lda_mailbox_autosubscribe"),
    *("postmaster_address", "hostname"),
)
_HOME = "/var/mail/%{user | domain}/%{user | username}"

_DOVECOT = (
    Fact("dovecot_config_version", "2.4.0", "Debian's, and the first line"),
    Fact("dovecot_storage_version", "2.4.0", "Debian's"),
    *(fact for fact in facts.DOVECOT if fact.name in _SAME or fact.name.startswith(("namespace ", "service "))),
    Fact("mail_driver", "maildir", "what backup and retention read"),
    Fact("mail_path", _HOME, "the same folders as before"),
    Fact("mail_home", f"{_HOME}/home", "Sieve scripts live there"),
    Fact("mailbox_list_index", "yes", "new with 16; 15 leaves the file alone"),
    Fact("ssl_server_dh_file", "/etc/dovecot/dh.pem", "RFC 7919 group"),
    Fact("ssl_server_prefer_ciphers", "server", "TLS_LEVEL=modern"),
    Fact("passdb passdb-default > driver", "passwd-file", "accounts are a file"),
    Fact("passdb passdb-default > passwd_file_path", "/etc/dovecot/userdb", "accounts are a file"),
    Fact("passdb passdb-default > auth_username_format", "%{user}", "the whole address"),
    Fact("passdb passdb-default > mechanisms_filter", "plain login", "behind TLS only"),
    Fact("passdb passdb-default > default_password_scheme", "SHA512-CRYPT", "a hash without {SCHEME}"),
    Fact("userdb userdb-default > driver", "passwd-file", "accounts are a file"),
    Fact("userdb userdb-default > passwd_file_path", "/etc/dovecot/userdb", "the same"),
    Fact("userdb userdb-default > auth_username_format", "%{user}", "the whole address"),
    Fact("userdb userdb-default > fields > uid:default", "docker", "owner"),
    Fact("userdb userdb-default > fields > gid:default", "docker", "owner"),
    Fact("userdb userdb-default > fields > home:default", "/var/mail/%{user | domain}/%{user}/home/", "owner"),
    Fact("protocol lmtp > mail_plugins > sieve", "yes", "Sieve runs at delivery"),
    Fact("sieve_extensions > special-use", "yes", "what a script may require"),
    Fact("sieve_extensions > vnd.dovecot.pipe", "yes", "what a script may require"),
    Fact("sieve_extensions > vnd.dovecot.filter", "yes", "what a script may require"),
    Fact("sieve_plugins > sieve_imapsieve", "yes", "learning from moves"),
    Fact("sieve_plugins > sieve_extprograms", "yes", "learning from moves"),
    Fact("sieve_filter_bin_dir", "/usr/lib/dovecot/sieve-filter", "empty"),
    Fact("sieve_pipe_bin_dir", "/usr/lib/dovecot/sieve-pipe", "rspamc"),
    Fact("sieve_script spam_to_junk > type", "after", "spam to Junk"),
    Fact("sieve_script spam_to_junk > path", "/usr/lib/dovecot/sieve-global/after/70-spam_to_junk.sieve", "spam to Junk"),
)
_LEARN_SPAM, _LEARN_HAM = "mailbox Junk > sieve_script learn_spam", "imapsieve_from Junk > sieve_script learn_ham"
_DOVECOT_LEARN = (
    Fact("protocol imap > mail_plugins > imap_sieve", "yes", "a move to or from Junk is seen"),
    *(
        Fact(f"{script} > {name}", value, "moved to Junk, or back")
        for script, kind in ((_LEARN_SPAM, "spam"), (_LEARN_HAM, "ham"))
        for name, value in (
            *(("cause", "append copy"), ("driver", "file"), ("name", f"Learn {kind}"), ("type", "before")),
            ("path", f"/usr/lib/dovecot/sieve-pipe/learn-{kind}.sieve"),
        )
    ),
)
_POSTFIX_MAIN = (
    *(fact for fact in facts.POSTFIX_MAIN if fact.name not in {"compatibility_level", "smtpd_tls_dh1024_param_file"}),
    Fact("compatibility_level", "3.10", "decides the defaults of all that is not set"),
)
MAJORS = {
    "15": Major(
        dovecot=facts.DOVECOT,
        dovecot_learn=facts.DOVECOT_LEARN,
        dovecot_tls=(Fact("ssl_cert", "</etc/dms/tls/cert", ""), Fact("ssl_key", "</etc/dms/tls/key", "")),
        junk_script="spam_to_junk.sieve",
        postfix_main=facts.POSTFIX_MAIN,
        rspamd_redis=facts.RSPAMD_REDIS,
    ),
    "16": Major(
        dovecot=_DOVECOT,
        dovecot_learn=_DOVECOT_LEARN,
        dovecot_tls=(Fact("ssl_server_cert_file", "/etc/dms/tls/cert", ""), Fact("ssl_server_key_file", "/etc/dms/tls/key", "")),
        junk_script="70-spam_to_junk.sieve",
        postfix_main=_POSTFIX_MAIN,
        rspamd_redis=facts.RSPAMD_REDIS | {"redis.conf": (Fact("servers", '"127.0.0.1:6379"', "the image's own Redis"),)},
    ),
}
