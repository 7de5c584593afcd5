"""Alerts on lines of the mail log and of the jobs' logs, for Loki's ruler."""

from components.mail.rspamd import LIMIT_REACHED
from components.monitoring.alert import Alert
from components.settings.schedule import most_runs_per_day
from components.settings.site import Site

# An address of the owner's own networks (RFC 1918), as Postfix writes it behind a client's name.
OWN_ADDRESS = r"\[(10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.)"
OFTEN = 5  # deferrals in an hour; one server that is busy makes fewer
QUOTA_SHARE = 0.8


def _count(site: Site, *filters: str, span: str = "15m") -> str:
    return f'sum(count_over_time({{namespace="{site.namespace}"}} {" ".join(filters)} [{span}]))'


def _seen(*filters: str, span: str = "15m", above: int = 0):  # noqa: ANN202 - a query of a site
    return lambda site: f"{_count(site, *filters, span=span)} > {above}"


def _line(text: str) -> str:
    return f"|= `{text}`"


def _quota(site: Site) -> str | None:
    relay, probe = site.mail.relay, site.jobs.probe
    if relay is None or relay.daily_quota is None:
        return None
    by_api = most_runs_per_day(probe.schedule) if probe else 0  # the relay counts them, and our log does not show them
    bound = int(QUOTA_SHARE * relay.daily_quota) - by_api
    return f"{_count(site, _line(f'relay={relay.host}['), _line('status=sent'), span='24h')} > {bound}" if bound > 0 else None


def _over_limit(site: Site) -> str | None:
    if site.mail.sending_limit is None:
        return None
    account = rf"| regexp `(?P<account>[^ ]+) {LIMIT_REACHED}`"
    return f'sum by (account) (count_over_time({{namespace="{site.namespace}"}} {_line(LIMIT_REACHED)} {account} [15m])) > 0'


def _issuer(site: Site) -> str | None:
    return _seen(_line("oauth2 failed: "), _line("Error: "))(site) if site.mail.oauth else None


LOG = "`kubectl -n mailserver logs deploy/mailserver | grep` the words of the query"

ALERTS = (
    Alert(
        "AccountOverSendingLimit",
        _over_limit,
        "0m",
        "critical",
        "An account has sent all that it may, and more is deferred. Either its owner writes to very many, or its password was stolen and "
        "sends spam.",
        "Ask the owner. If it was not the owner: docs/runbooks/accounts.md, section *A mailbox's password was stolen*. Else wait, or raise "
        "`mail.sending_limit`.",
        "{{ $labels.account }}",
    ),
    Alert(
        "ClusterServiceCannotRelayMail",
        _seen(_line("NOQUEUE: reject"), r"|~ `svc\.cluster\.local\[`"),
        "5m",
        "warning",
        "A program in the cluster tries to send mail and is refused, usually because it does not log in.",
        f"{LOG}: the line names pod, sender and reason. Give the program an account, or the account the sender (`send_as`).",
    ),
    Alert(
        "InternalMailAuthFailure",
        _seen(r"|~ `SASL (LOGIN|PLAIN) authentication failed`", f"|~ `{OWN_ADDRESS}`"),
        "5m",
        "warning",
        "A program or device of your own logs in with a wrong password. One did so for nine months before anybody saw it.",
        f"{LOG}: the line names address and login. Correct the password there, or in the secret store.",
    ),
    Alert(
        "TokenIssuerFails",
        _issuer,
        "5m",
        "warning",
        "The issuer of tokens (`mail.oauth`) does not answer, or not as agreed: no one logs in by a token. Passwords work.",
        f"{LOG}: the line says what it answered. `invalid_client` or `No username returned`: docs/runbooks/accounts.md, section *Log in by "
        "a token*.",
    ),
    Alert(
        "OutboundMailBounced",
        _seen(_line("status=bounced"), span="1h"),
        "0m",
        "warning",
        "A message that left here was refused for good; its sender got a bounce, if it is a person.",
        f"{LOG}: the line quotes the other server. A refusal of the relay for one recipient may be its block list; several recipients "
        "at once: the account there, or our reputation.",
    ),
    Alert(
        "OutboundMailDeferred",
        _seen(_line("status=deferred"), span="1h", above=OFTEN),
        "15m",
        "warning",
        "Mail does not leave and is tried again: the relay, a receiving server or our own filter does not take it.",
        f"{LOG}: the line quotes the reason. See MailQueueStuck.",
    ),
    Alert(
        "InternalHostCannotSendMail",
        _seen(_line("cannot find your hostname"), f"|~ `{OWN_ADDRESS}`"),
        "15m",
        "warning",
        "A host of your own is refused because its address has no name inside the pod. Reports of one were lost for a month.",
        "Give the address a PTR record in the resolver that the pod asks (`dig -x` in the pod), or let the host log in on port 587.",
    ),
    Alert(
        "PostscreenCacheLocked",
        _seen(_line("unable to get exclusive lock")),
        "0m",
        "critical",
        "Two postscreen listeners share one cache file and shut each other out: one of the two answers no one.",
        "`postconf -P | grep postscreen_cache_map` in the pod: the PROXY listener needs a file of its own, which user-patches.sh sets. "
        "Remove an override of it from mail.extra.",
    ),
    Alert(
        "HealthCheckOnProxyListener",
        _seen(_line("Servname not supported")),
        "0m",
        "critical",
        "Something connects to a PROXY listener without the header and kills its process; half of all clients time out meanwhile.",
        "HAProxy's checks have to go to the health NodePorts: `make edge-plan`, then `make up`. Or another host connects to the NodePort: "
        "the line before names it.",
    ),
    Alert(
        "AliasListedTwice",
        _seen(_line("exists more than once")),
        "0m",
        "critical",
        "Dovecot's list of users holds an address twice, and it looks up none of them: no one can log in.",
        "With quotas on, an alias and an account of the same name do that. Remove one of the two from settings or store, or the quotas.",
    ),
    Alert(
        "QueueFileWriteError",
        _seen(_line("queue file write error")),
        "0m",
        "critical",
        "Postfix cannot write a message to its queue and defers all mail (451).",
        "MailSrsDown, MailFilterDown and MailVolumeNearlyFull are its three known causes; the lines around it say which.",
    ),
    Alert(
        "NoSpaceLeft",
        _seen(r"|~ `No space left|Insufficient system storage`"),
        "0m",
        "critical",
        "A volume is full: Postfix refuses mail, Dovecot cannot deliver, or a backup cannot be written.",
        "The line's pod and container say whose. For the mail volume see MailVolumeNearlyFull, for a backup the NFS server.",
    ),
    Alert(
        "LastGoodSetInUse",
        _seen(_line("LAST GOOD SET IN USE"), span="1h"),
        "0m",
        "warning",
        "A Secret was unusable when the pod started, which therefore runs with what it had before.",
        "See MailAccountsOutdated; the line names the part and the fault.",
    ),
    Alert(
        "HeartbeatFailed",
        _seen(r"|~ `^heartbeat \S+: (failed|line)`", span="1h"),
        "0m",
        "warning",
        "Mail arrives, but the probe cannot tell the outside monitor, which will therefore report an outage.",
        "The line names the heartbeat: a token that was changed, or a line of the Secret that is not a URL.",
    ),
    Alert(
        "JobsCannotReport",
        _seen(_line("Pushgateway: failed"), span="1h"),
        "0m",
        "warning",
        "A job cannot push its results: the alerts on metrics see old values, and stay silent or fire without cause.",
        "Is the Pushgateway running, and is jobs.pushgateway its address? A NetworkPolicy may keep the jobs from it.",
    ),
    Alert(
        "RelayQuotaNearlyUsed",
        _quota,
        "0m",
        "warning",
        f"{QUOTA_SHARE:.0%} of the relay's daily quota are used. When it is used up, the relay refuses all mail until the next day.",
        "`kubectl -n mailserver logs deploy/mailserver | grep status=sent` by sender. One sender out of line: change its password first. "
        "Else raise the plan or probe less often.",
        "{{ $value }} messages in 24 hours",
    ),
)
