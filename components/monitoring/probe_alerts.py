"""Alerts about the round trip: does mail arrive, by which path, how is it judged, and what do the services show at their public names."""

from components.jobs.bounds import overdue
from components.jobs.probe import INBOUND, OUTBOUND
from components.monitoring.alert import Alert, series
from components.settings.schedule import Schedule
from components.settings.site import Site

RENEWED = 14  # days; Let's Encrypt's certificates are renewed 30 days before they expire
URGENT = 3


def _inbound(site: Site) -> Schedule | None:
    return site.jobs.probe.schedule if site.jobs.probe and site.jobs.pushgateway else None


def _outbound(site: Site) -> Schedule | None:
    probe = site.jobs.probe
    return probe.outbound.schedule if probe and probe.outbound and site.jobs.pushgateway else None


def _edge(site: Site) -> bool:
    return bool(site.jobs.probe and site.jobs.probe.edge and site.jobs.pushgateway)


def _silent(job: str, schedule: Schedule | None) -> str | None:
    """No push for too long. The job's own metrics cannot tell: the Pushgateway shows the last ones forever."""
    pushed = series("push_time_seconds", job=job)
    return f"absent({pushed}) or (time() - {pushed}) > {overdue(job, schedule)}" if schedule else None


def _stale(job: str, schedule: Schedule | None, metric: str) -> str | None:
    return f"(time() - {series(metric, job=job)}) > {overdue(job, schedule)}" if schedule else None


def _verdict(name: str, verdicts: str, severity: str, impact: str, remedy: str) -> Alert:
    selector = series("email_roundtrip_verdict", job=INBOUND, verdict=f"~{verdicts}")
    return Alert(
        f"EmailProbe{name}",
        lambda site: f"{selector} == 1" if _inbound(site) else None,
        "1m",
        "critical" if severity == "critical" else "warning",
        impact,
        remedy,
        "{{ $labels.verdict }}",
    )


LOG = "`kubectl -n mailserver logs -l app.kubernetes.io/name=email-roundtrip-monitor --tail=20` has the run's last lines."

ALERTS = (
    Alert(
        "EmailRoundtripFailing",
        lambda site: f"{series('email_roundtrip_success', job=INBOUND)} == 0" if _inbound(site) else None,
        "60m",
        "warning",
        "For an hour no probe message has arrived. One of the alerts EmailProbe… has said why after the first.",
        f"See that alert's section. {LOG}",
    ),
    Alert(
        "EmailRoundtripStale",
        lambda site: _stale(INBOUND, _inbound(site), "email_roundtrip_last_success_timestamp"),
        "20m",
        "warning",
        "The last probe message that arrived is too old.",
        f"See the alert EmailProbe… that fires beside it, else EmailRoundtripNeverRun. {LOG}",
    ),
    Alert(
        "EmailRoundtripNeverRun",
        lambda site: _silent(INBOUND, _inbound(site)),
        "60m",  # a Pushgateway that restarts forgets the probe until its next run
        "warning",
        "The probe does not run, or cannot report: whether mail arrives is unknown.",
        "`kubectl -n mailserver get cronjob,job,pod -l app.kubernetes.io/name=email-roundtrip-monitor`: suspended, never scheduled, an "
        "image that cannot be pulled. If its log says `Pushgateway: failed`, the Pushgateway is the cause.",
    ),
    _verdict(
        "NotDelivered",
        "not_delivered",
        "critical",
        "The relay took a message for us, and it is not in the mailbox: mail from the Internet is probably not arriving.",
        "Follow its path: does the firewall redirect port 25 (`make edge-plan`), is a server up (`make edge-health`), does the mail log "
        "show the message (`kubectl -n mailserver logs deploy/mailserver | grep e2e-probe`), does MailVolumeNearlyFull or MailFilterDown "
        "fire? If none of it shows the message, the relay's own log does.",
    ),
    _verdict(
        "Junk",
        "junk",
        "warning",
        "A probe message was filed as junk. What spoils it spoils other mail too.",
        "Its header `X-Spamd-Result` in the log names the rules. Often the pod's resolver does not see our own SPF and DKIM records, so "
        "that they are judged as missing: compare `dig TXT` in the pod and outside.",
    ),
    _verdict(
        "PrivateClient",
        "private_client",
        "warning",
        "Mail arrives, but under the firewall's or a node's address: the PROXY header is lost. SPF, block lists and bans judge the wrong "
        "host, and a ban would hit everybody.",
        "`make edge-plan` shows what differs on the firewall. The redirect has to point to HAProxy and its servers to the PROXY NodePorts.",
    ),
    _verdict(
        "ViaRelay",
        "via_relay",
        "warning",
        "Mail arrives by the second MX only: for senders the first one does not answer.",
        "`make edge-health`, and a connection to port 25 of the public address from outside. The log of the firewall shows whether it "
        "comes in at all.",
    ),
    _verdict(
        "Bounced",
        "bounced",
        "critical",
        "Instead of the probe message its bounce came back: mail from the Internet is being refused, and senders give up at once.",
        "The bounce is still in the probe's mailbox and quotes our refusal. `kubectl -n mailserver logs deploy/mailserver | grep reject`.",
    ),
    _verdict(
        "SendFailed",
        "send_failed",
        "warning",
        "The relay's API refuses the probe's message. Inbound mail may be fine; outbound mail uses the same account.",
        "Log in at the relay: account blocked, quota used up, key revoked. A new key goes into the secret store.",
    ),
    _verdict(
        "Certificate",
        "certificate",
        "critical",
        "The certificate that the mail server shows is not valid for its public name: mail programs warn or refuse to connect.",
        "MailCertificateExpiring tells whether it expired. `kubectl -n mailserver get secret` for its age; the mail server takes a renewed "
        "one by itself within minutes.",
    ),
    _verdict(
        "MailboxUnreachable",
        "login_failed|imap_failed",
        "critical",
        "The probe cannot read its mailbox: IMAP does not answer or refuses the password, which users notice the same way.",
        "MailServerDown or MailAccountsOutdated name the usual causes. Only this password: it was changed in one of two places of the "
        "secret store.",
    ),
    _verdict(
        "Broken",
        "misconfigured|stopped|internal_error",
        "warning",
        "The probe itself failed, so whether mail arrives is unknown.",
        f"{LOG} `misconfigured`: a key is missing in its Secret. `stopped`: the node was drained, or the run took too long.",
    ),
    Alert(
        "EmailProbeUnauthenticated",
        lambda site: f"{series('email_roundtrip_authenticated', job=INBOUND)} == 0" if _inbound(site) else None,
        "1m",
        "warning",
        "The probe's message did not pass SPF, DKIM or DMARC. It is sent with our domain through the relay, as users' mail is: other "
        "servers see the same fault and will file our mail as junk.",
        "`make render` prints what the records should be; the relay's page of senders and domains shows whether it still signs for us.",
        "{{ $labels.method }}",
    ),
    Alert(
        "EmailOutboundFailing",
        lambda site: f"{series('email_outbound_success', job=OUTBOUND)} == 0" if _outbound(site) else None,
        "1m",
        "critical",
        "A message submitted here did not come back from the other provider: users' mail may not leave.",
        "`kubectl -n mailserver logs -l app.kubernetes.io/name=email-outbound-monitor --tail=20`, then the queue "
        "(`postqueue -p` in the pod): it names the relay's answer. If it left, the other provider stopped forwarding.",
    ),
    Alert(
        "EmailOutboundStale",
        lambda site: _silent(OUTBOUND, _outbound(site)),
        "2h",
        "warning",
        "The outbound probe does not run, or cannot report: whether mail leaves is unknown.",
        "As for EmailRoundtripNeverRun, with the CronJob email-outbound-monitor.",
    ),
    Alert(
        "MailEdgeDown",
        lambda site: f"{series('email_edge_up', job=INBOUND)} == 0" if _edge(site) else None,
        "1m",
        "warning",
        "A service does not greet a client at its public name. Seen from inside the cluster, so the fault may be in the path back in.",
        "`make edge-health` shows HAProxy's servers, `make edge-plan` what differs on the firewall. If both are right, "
        "connect from outside.",
        "{{ $labels.service }} at {{ $labels.host }} over {{ $labels.family }}",
    ),
    Alert(
        "MailEdgeTlsBroken",
        lambda site: (
            f"{series('email_edge_tls', job=INBOUND)} == 0 and on (service, host, family) {series('email_edge_up', job=INBOUND)} == 1"
            if _edge(site)
            else None
        ),
        "1m",
        "critical",
        "A service answers, but without TLS that is valid for its name: mail programs refuse it, and senders under MTA-STS keep the mail.",
        "`openssl s_client -connect <host>:<port> -verify_hostname <host>` names the fault. See MailCertificateExpiring.",
        "{{ $labels.service }} at {{ $labels.host }} over {{ $labels.family }}",
    ),
    Alert(
        "MailCertificateExpiring",
        lambda site: f"min by (service, host) ({series('email_edge_certificate_days', job=INBOUND)}) < {RENEWED}" if _edge(site) else None,
        "1m",
        "warning",
        "A certificate expires soon and has not been renewed, or was renewed and is not served.",
        "Compare `kubectl -n mailserver get secret <tls.secret> -o yaml` (`openssl x509 -enddate`) with what is served. Old in the Secret: "
        "look at its issuer. New there: restart the pod and report it, because a renewal should be served within minutes.",
        "{{ $labels.service }} at {{ $labels.host }}: {{ $value | humanize }} days left",
    ),
    Alert(
        "MailCertificateExpired",
        lambda site: f"min by (service, host) ({series('email_edge_certificate_days', job=INBOUND)}) < {URGENT}" if _edge(site) else None,
        "1m",
        "critical",
        f"A certificate expires within {URGENT} days or has expired: from then on mail programs refuse to connect.",
        "Renew it by hand now, put it into the Secret, and see MailCertificateExpiring for why nothing did.",
        "{{ $labels.service }} at {{ $labels.host }}: {{ $value | humanize }} days left",
    ),
)
