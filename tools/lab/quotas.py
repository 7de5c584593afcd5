"""ENABLE_QUOTAS: what the image sets where a mailbox has a limit, and how it writes Dovecot's user list then.

Read in the image's source; names are compared as its grep does, by any part of a line.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from components.mail.image import VMAIL
from tools.lab.facts import POSTFIX_MAIN, Fact

MEGABYTE = 1_000_000  # by which the image divides Postfix's limit, and calls the result M
WARNING_SCRIPT = "/usr/local/bin/quota-warning"
WARNING = """\
#!/bin/bash
printf 'Subject: quota warning\\n\\nYour mailbox is now %s%% full.\\n' "$1" | /usr/lib/dovecot/dovecot-lda -d "$2" -o {no_limit}
"""
_RECIPIENTS = next(fact for fact in POSTFIX_MAIN if fact.name == "smtpd_recipient_restrictions")
POLICY = _RECIPIENTS._replace(value=f"{_RECIPIENTS.value}, check_policy_service inet:localhost:65265")


class Quotas(NamedTuple):
    """What differs between the major versions."""

    dovecot: tuple[Fact, ...]
    no_limit: str  # Dovecot's option with which a warning gets into a full mailbox
    limit: str  # of one mailbox, in the user list
    grace: str | None  # the same, where it cannot be a share
    each_target: bool  # whether the image looks at each target of an alias, or at one alone


_STATUS = (
    Fact("service quota-warning > executable", f"script {WARNING_SCRIPT}", "a message at 80 and 95 %"),
    Fact("service quota-status > executable", "quota-status -p postfix", "Postfix asks before it takes mail"),
    Fact("service quota-status > client_limit", "1", "as above"),
)
BY_MAJOR = {
    "15": Quotas(
        (
            *_STATUS,
            Fact("mail_plugins", "quota", "everything that stores mail counts"),
            Fact("protocol lmtp > mail_plugins", "quota sieve", "a full mailbox refuses"),
            Fact("protocol imap > mail_plugins", "quota imap_quota imap_sieve", "clients see their limit"),
            Fact("plugin > quota", "count:User quota", "counted in the index"),
            Fact("plugin > quota_vsizes", "yes", "with line ends as on the wire"),
            Fact("plugin > quota_max_mail_size", "$LARGEST", "a message of Postfix's limit"),
            Fact("plugin > quota_rule", "*:storage=0", "no limit of a mailbox without its own"),
            Fact("plugin > quota_rule2", "Trash:storage=+50M", "so that a full mailbox can be emptied"),
            Fact("plugin > quota_grace", "10%%", "the last message may go beyond by so much"),
            Fact("plugin > quota_warning", "storage=95%% quota-warning 95 %u %d", "a message"),
            Fact("plugin > quota_warning2", "storage=80%% quota-warning 80 %u %d", "a message"),
            Fact("plugin > quota_warning3", "-storage=100%% quota-warning below %u %d", "a message"),
            Fact("plugin > quota_status_success", "DUNNO", "what Postfix is told"),
            Fact("plugin > quota_status_nouser", "DUNNO", "what Postfix is told"),
            Fact("plugin > quota_status_overquota", '"552 5.2.2 Mailbox is full"', "what Postfix is told"),
            Fact("service quota-warning > unix_listener quota-warning > user", "dovecot", "mail processes are of another user"),
            Fact("service quota-warning > unix_listener quota-warning > group", "dovecot", "as above"),
            Fact("service quota-warning > unix_listener quota-warning > mode", "0660", "as above"),
            Fact("service quota-status > inet_listener > address", "127.0.0.1", "inside only"),
            Fact("service quota-status > inet_listener > port", "65265", "Postfix asks here"),
        ),
        no_limit='"plugin/quota=maildir:User quota:noenforcing"',
        limit="userdb_quota_rule=*:bytes={0}",
        grace=None,
        each_target=False,
    ),
    "16": Quotas(
        (
            *_STATUS,
            Fact("mail_plugins > quota", "yes", "everything that stores mail counts"),
            Fact("protocol imap > mail_plugins > imap_quota", "yes", "clients see their limit"),
            Fact("quota_driver", "count", "counted in the index"),
            Fact("quota_mail_size", "$LARGEST", "a message of Postfix's limit"),
            Fact("quota_storage_size", "0", "no limit of a mailbox without its own"),
            Fact("mailbox Trash > quota_storage_extra", "50M", "so that a full mailbox can be emptied"),
            Fact("quota_storage_grace", "10M", "the last message may go beyond by so much"),
            *(
                Fact(f"quota user > warning warn-{name} > {setting}", value, "a message")
                for name, percentage, word in (("80", 80, "80"), ("95", 95, "95"), ("under", 100, "below"))
                for setting, value in (
                    ("quota_storage_percentage", str(percentage)),
                    *([("threshold", "under")] if word == "below" else []),
                    ("execute quota-warning > args", f"{word} %{{user}}"),
                )
            ),
            Fact("service quota-warning > user", "docker", "the mail's own user"),
            Fact("service quota-warning > unix_listener quota-warning > user", "docker", "mail processes are of this user"),
            Fact("service quota-warning > unix_listener quota-warning > group", "docker", "as above"),
            Fact("service quota-warning > unix_listener quota-warning > mode", "0600", "as above"),
            Fact("service quota-status > inet_listener quota-status > listen", "127.0.0.1", "inside only"),
            Fact("service quota-status > inet_listener quota-status > port", "65265", "Postfix asks here"),
        ),
        no_limit="quota_enforce=no",
        limit="userdb_quota_storage_size={0}",
        grace="userdb_quota_storage_grace={0}",
        each_target=True,
    ),
}


def user_list(accounts: Sequence[str], aliases: Sequence[str], limits: Sequence[str] | None, quotas: Quotas) -> list[str]:
    """Lines of Dovecot's userdb from those of the image's three files; None: quotas are off."""

    def user(login: str, password: str, mailbox: str) -> str:
        name, domain = mailbox.split("@")[:2]
        attributes = " ".join(_attributes(mailbox, limits or (), quotas))
        return f"{login}:{password}:{VMAIL}:{VMAIL}::/var/mail/{domain}/{name}/home::{attributes}"

    users = [user(login, password, login) for login, password in (line.split("|")[:2] for line in accounts)]
    for line in aliases if limits is not None else ():
        alias, targets = line.split(maxsplit=1)
        known = (target for target in (targets.split(",") if quotas.each_target else [targets]) if any(target in row for row in accounts))
        if re.search(".+@.+", alias) and (mailbox := next(known, None)):
            row = next(row for row in accounts if mailbox in row)
            users.append(user(alias, row.split("|")[1], mailbox))
    return list(dict.fromkeys(users))


def _attributes(mailbox: str, limits: Sequence[str], quotas: Quotas) -> Iterator[str]:
    limit = next((line.rpartition(":")[2] for line in limits if f"{mailbox}:" in line), None)
    if limit is None:
        return
    yield quotas.limit.format(limit)
    if quotas.grace and (sized := re.fullmatch("([1-9][0-9]*)([BkMGT])", limit)):
        yield quotas.grace.format(f"{int(sized[1]) // 10}{sized[2]}")
