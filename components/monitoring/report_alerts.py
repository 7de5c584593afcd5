"""Alerts about what others say about us: reports of other mail servers, block lists."""

from components.jobs.reports import NAME as REPORTS
from components.jobs.reports import TLS_DAYS
from components.jobs.reputation import NAME as REPUTATION
from components.monitoring.alert import Alert, series
from components.monitoring.schedules import pushed, stale_or_never
from components.settings.site import Site

FORWARDED = 10  # messages that a week brings from a host that forwards some recipient's mail, signature and all
ENOUGH = 20  # messages; of fewer, one that was forwarded badly would be a large share
FAILING = 0.05  # of our own messages


def _unaligned(site: Site) -> str | None:
    ours = {"job": REPORTS, "known": "true"}
    all_of_them, failing = series("dmarc_messages", **ours), series("dmarc_messages", **ours, aligned="none")
    query = f"sum by (domain) ({failing}) / sum by (domain) ({all_of_them}) > {FAILING} and sum by (domain) ({all_of_them}) >= {ENOUGH}"
    return pushed(site, REPORTS, query)


def _listed(site: Site) -> str | None:
    """Who sends directly is refused for a policy entry too; who sends through a relay is not."""
    entries = "listed" if site.mail.relay else "~listed|policy"
    return pushed(site, REPUTATION, f"{series('mail_blocklist_listed', job=REPUTATION, entry=entries)} == 1")


RAW = "The reports themselves are in the folder `Reports` of the reports' mailbox"
RUN = f"`make job JOB={REPORTS}` reads the mailbox again; its log lists every count"

ALERTS = (
    Alert(
        "DmarcUnknownSource",
        lambda site: pushed(
            site,
            REPORTS,
            f"sum by (domain, source) ({series('dmarc_messages', job=REPORTS, known='false', aligned='~.*(dkim|spf).*')}) > {FORWARDED}",
        ),
        "1m",
        "warning",
        "Receivers count mail in our name that passes DMARC and comes from a network that is neither ours nor in our SPF record. It is a "
        "forwarder or a list, which keeps our signature; or a service that was given our keys; or a stolen key.",
        f"{RAW}: look at address and selector. A forwarder or service that you know goes into `jobs.reports.known_sources`. Else change "
        "the DKIM key of that selector now (docs/runbooks/dkim-rotation.md).",
        "{{ $labels.domain }} from {{ $labels.source }}: {{ $value }} messages in a week",
    ),
    Alert(
        "DmarcAlignmentLow",
        _unaligned,
        "1m",
        "warning",
        f"More than {FAILING:.0%} of the mail from our own senders fails DMARC: receivers file it as spam or refuse it.",
        "Compare the records in public with `make render` (`make doctor` does). The relay has to sign with our domain: see its page of "
        f"senders and domains. {RUN}, by source.",
        "{{ $labels.domain }}: {{ $value | humanizePercentage }}",
    ),
    Alert(
        "TlsReportedFailing",
        lambda site: pushed(
            site, REPORTS, f'sum by (domain, policy, result) (tls_report_sessions{{job="{REPORTS}", result!="success"}}) > 0'
        ),
        "1m",
        "warning",
        f"In the last {TLS_DAYS} days other servers could not deliver to us over TLS as our policy demands. With MTA-STS in `enforce` that "
        "mail is held back, and bounces after days.",
        "`certificate-…`, `sts-webpki-invalid`: see MailEdgeTlsBroken. `sts-policy-…`: open the policy's URL from outside. "
        f"`starttls-not-supported`, `validation-failure`: connect from outside. {RAW}, with the sender's address.",
        "{{ $labels.domain }} {{ $labels.policy }}: {{ $labels.result }} in {{ $value }} sessions",
    ),
    Alert(
        "MailReportsStale",
        lambda site: stale_or_never(site, REPORTS),
        "1h",
        "warning",
        "The reports of other mail servers are not read any more.",
        f"JobFailed says whether it fails; the log names the reason in one line. {RUN}.",
    ),
    Alert(
        "MailAddressListed",
        _listed,
        "1m",
        "warning",
        "A block list holds an address or a domain that our mail is judged by: receivers that ask this list refuse or junk it.",
        f"`make job JOB={REPUTATION}` asks again, and its log has the list's own page. First find out why: MailQueueGrowing, a password "
        "that was guessed, RelayQuotaNearlyUsed. Removal without the cause lasts a day. If it is the relay's, tell the relay: its "
        "customers share it.",
        "{{ $labels.subject }} ({{ $labels.whose }}) in {{ $labels.list }}",
    ),
    Alert(
        "BlocklistsSilent",
        lambda site: pushed(site, REPUTATION, f"max({series('mail_blocklist_usable', job=REPUTATION)}) == 0"),
        "1m",
        "warning",
        "No block list can be asked from the cluster, so a listing would go unseen; the spam filter asks the same way and is blind too.",
        f"`make job JOB={REPUTATION}` says why in its log. Lists refuse public resolvers: let the cluster's DNS resolve by itself instead "
        "of forwarding to one.",
    ),
    Alert(
        "MailReputationStale",
        lambda site: stale_or_never(site, REPUTATION),
        "1h",
        "warning",
        "Block lists have not been asked for too long.",
        f"JobFailed says whether it fails. `make job JOB={REPUTATION}` asks now.",
    ),
)
