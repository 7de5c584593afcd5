"""Alerts about the mail server itself: its pod, its listeners, its queue, its volume, the jobs beside it, the second MX."""

from components.jobs.probe import INBOUND, OUTBOUND
from components.listeners import LISTENERS
from components.monitoring.alert import Alert, series
from components.names import MAIL_SERVER
from components.settings.mail import QUEUE_HEADROOM
from components.settings.quantity import in_bytes
from components.settings.site import Site

PULSE = MAIL_SERVER  # group of pulse.py in the Pushgateway
FILTER, SRS = "rspamd", "postsrsd"  # listeners of the pulse that are not mail services
DEPTH = 50  # messages; a site of this size has a handful in the queue
WAITING, DEFERRED = 1200, 4 * 3600  # seconds that a message may wait for its first try, and for its last


def _deployment(site: Site) -> str:
    return series("kube_deployment_status_replicas_available", namespace=site.namespace, deployment=MAIL_SERVER)


def _listener(site: Site, listeners: str) -> str | None:
    return f"{series('mail_listener_up', job=PULSE, listener=listeners)} == 0" if site.jobs.pushgateway else None


def _pulse_lost(site: Site) -> str | None:
    pushed = series("push_time_seconds", job=PULSE)
    return f"(time() - {pushed}) > 300 or absent({pushed})" if site.jobs.pushgateway else None


def _free(site: Site) -> str:
    """From the kubelet and from the pod itself: a Prometheus that drops one of them still has the other."""
    enough = 2 * int(QUEUE_HEADROOM * in_bytes(site.mail.message_size_limit))
    kubelet = series("kubelet_volume_stats_available_bytes", namespace=site.namespace, persistentvolumeclaim=site.mail.storage.claim)
    return f"min({kubelet} or {series('mail_volume_free_bytes', job=PULSE)}) < {enough}"


def _volumes(site: Site, metric: str) -> str:
    return series(metric, namespace=site.namespace)


def _failed(site: Site, which: str, seconds: int) -> str:
    """A failed Job that began in the last so many seconds; what began earlier has had a successor."""
    matchers = f'namespace="{site.namespace}", {which}'
    return (
        f'kube_job_failed{{{matchers}, condition="true"}} == 1 '
        f"and on (namespace, job_name) (time() - kube_job_status_start_time{{{matchers}}}) < {seconds}"
    )


def _second_mx_queue(site: Site) -> str | None:
    second = site.monitoring and site.monitoring.second_mx
    if not second or second.queue_node is None:
        return None
    return f"(max({series('postfix_queue_size', node=second.queue_node, queue='deferred')}) > 0) and on () (max({_deployment(site)}) > 0)"


def _second_mx(site: Site) -> str | None:
    second = site.monitoring and site.monitoring.second_mx
    return f"(max({series('probe_success', job=second.probe_job)}) or on () vector(0)) == 0" if second else None


ALERTS = (
    Alert(
        "MailServerDown",
        lambda site: f"({_deployment(site)} or on () vector(0)) < 1",
        "5m",
        "warning",
        "No mail server is running: the second MX, or else the senders themselves, keep inbound mail for days; no one can read or send.",
        "`kubectl -n mailserver describe pod -l app=mailserver` and `kubectl -n mailserver logs deploy/mailserver --all-containers` say "
        "why. A pod that waits for its volume after a lost node: docs/runbooks/deploy.md.",
    ),
    Alert(
        "MailPulseLost",
        _pulse_lost,
        "5m",
        "warning",
        "The mail server's container no longer reports its listeners, its queue and its free space, so the alerts on those are blind.",
        "If MailServerDown fires too, that is the cause. Else look whether the Pushgateway answers: "
        "`kubectl -n mailserver exec deploy/mailserver -- pgrep -af pulse.py`, and restart the pod if nothing is listed.",
    ),
    Alert(
        "MailListenerMissing",
        lambda site: _listener(site, f"~({'|'.join(s.name for s in LISTENERS)})(-proxy)?"),
        "5m",
        "critical",
        "Nothing listens on a port of the mail server. A missing PROXY listener cuts off all clients on the Internet, while clients in the "
        "cluster and HAProxy's health checks see nothing of it.",
        "`kubectl -n mailserver exec deploy/mailserver -- postconf -M` must list the port; if it does not, user-patches.sh failed at the "
        "start: restart the pod and read its first log lines. `make lab` starts the same configuration on this machine.",
        "{{ $labels.listener }}",
    ),
    Alert(
        "MailFilterDown",
        lambda site: _listener(site, FILTER),
        "5m",
        "critical",
        "Rspamd does not listen, so Postfix defers all mail (451): nothing is lost, nothing arrives.",
        "`kubectl -n mailserver logs deploy/mailserver | grep -i rspamd`; a fault in an override shows in "
        "`kubectl -n mailserver exec deploy/mailserver -- rspamadm configtest`. Killed for memory: raise mail.resources.memory_limit.",
    ),
    Alert(
        "MailSrsDown",
        lambda site: _listener(site, SRS) if site.srs else None,
        "5m",
        "critical",
        "postsrsd does not listen, and Postfix asks it about every sender: all mail is deferred with `451 queue file write error`.",
        "`kubectl -n mailserver exec deploy/mailserver -- top -bn1` shows a postsrsd that closes file descriptors for minutes where the "
        "runtime sets no limit; then the wrapper of user-patches.sh is missing. As a way round: `mail.srs: false`.",
    ),
    Alert(
        "MailAccountsOutdated",
        lambda site: f"{series('mail_last_good_set_in_use', job=PULSE)} == 1" if site.jobs.pushgateway else None,
        "1m",
        "warning",
        "The pod runs with the accounts, aliases, relay password or DKIM keys of an earlier start, because a Secret was unusable when it "
        "started. A changed password does not work yet.",
        "docs/runbooks/restore.md, section *The pod starts with the last good Secrets*: the log of the init container `assemble` names the "
        "fault. Mend the entry in the store, then restart the pod.",
    ),
    Alert(
        "MailQueueGrowing",
        lambda site: f"sum({series('mail_queue_messages', job=PULSE)}) > {DEPTH}" if site.jobs.pushgateway else None,
        "15m",
        "warning",
        f"More than {DEPTH} messages wait in the queue: the relay refuses them, or an account sends spam.",
        "`kubectl -n mailserver exec deploy/mailserver -- postqueue -p` lists sender, recipient and reason. One sender with many "
        "recipients: change that account's password first, then `postsuper -d` what it sent.",
        "{{ $value }} messages",
    ),
    Alert(
        "MailQueueStuck",
        lambda site: (
            f"{series('mail_queue_oldest_seconds', job=PULSE, queue='~maildrop|incoming|active')} > {WAITING} "
            f"or {series('mail_queue_oldest_seconds', job=PULSE, queue='deferred')} > {DEFERRED}"
            if site.jobs.pushgateway
            else None
        ),
        "5m",
        "warning",
        "A message has waited too long: hours for its next try, or minutes for its first, which means that the queue does not move at all.",
        "`kubectl -n mailserver exec deploy/mailserver -- postqueue -p` names the reason; after it is gone, `postqueue -f` tries again.",
        "queue {{ $labels.queue }}",
    ),
    Alert(
        "MailVolumeNearlyFull",
        _free,
        "5m",
        "critical",
        "The mail volume has less free space than two messages of the largest size need with Postfix' reserve. Below half of that, Postfix "
        "refuses all mail with `452 Insufficient system storage`.",
        "Grow the claim (`kubectl -n mailserver edit pvc`), or find what fills it: `du -xsh /var/mail/*/* /var/log/mail` in the pod. "
        "Folders `.before-restore-…` are what a restore moved aside and may go first.",
        "{{ $value | humanize1024 }}B free",
    ),
    Alert(
        "PVFillingUp",
        lambda site: (
            f"{_volumes(site, 'kubelet_volume_stats_used_bytes')} / {_volumes(site, 'kubelet_volume_stats_capacity_bytes')} > 0.95"
        ),
        "10m",
        "critical",
        "A volume of the mail system is 95 % full.",
        "Grow the claim, or see what fills it. For the mail volume, MailVolumeNearlyFull comes first and says more.",
        "{{ $labels.persistentvolumeclaim }}",
    ),
    Alert(
        "PVPredictedFull",
        lambda site: (
            f"predict_linear({_volumes(site, 'kubelet_volume_stats_used_bytes')}[6h], 86400) "
            f"> {_volumes(site, 'kubelet_volume_stats_capacity_bytes')}"
        ),
        "1h",
        "warning",
        "At the pace of the last six hours a volume of the mail system is full within a day.",
        "See what grows: a mailbox that receives a flood, or a log. Grow the claim if it is ordinary mail.",
        "{{ $labels.persistentvolumeclaim }}",
    ),
    Alert(
        "JobFailed",
        lambda site: _failed(site, f'job_name!~"({INBOUND}|{OUTBOUND}|.*backup)-.*"', 6 * 3600),
        "1m",
        "warning",
        "Retention, the restore drill, a restore, the report reader or the look at block lists ended with an error. The probe and the "
        "backups have alerts of their own.",
        "`kubectl -n mailserver logs job/<name>` has the reason in its last lines; finished jobs are kept for a day. "
        "`make job JOB=<CronJob>` runs it again.",
        "{{ $labels.job_name }}",
    ),
    Alert(
        "BackupCronJobFailed",
        lambda site: _failed(site, 'job_name=~".*backup.*"', 86400),
        "15m",
        "warning",
        "A backup ended with an error, or could not report to the Pushgateway: the last good snapshot is a day old.",
        "`kubectl -n mailserver logs job/<name>`; what each refusal means is in docs/runbooks/restore.md. Then `make job JOB=<CronJob>`.",
        "{{ $labels.job_name }}",
    ),
    Alert(
        "JobRunningTooLong",
        lambda site: (
            f'kube_job_status_active{{namespace="{site.namespace}", job_name!~".*-restore-[^d].*"}} > 0 and on (namespace, job_name) '
            f'(time() - kube_job_status_start_time{{namespace="{site.namespace}"}}) > 10800'
        ),
        "10m",
        "warning",
        "A job has run for three hours although it is ended after two at most: its pod hangs on a node or a volume that does not answer, "
        "and it may keep the mail volume from moving to another node.",
        "`kubectl -n mailserver describe job/<name>` shows the pod and its node. Delete the Job; if the pod stays, its node "
        "is the problem.",
        "{{ $labels.job_name }}",
    ),
    Alert(
        "BackupMxDown",
        _second_mx,
        "15m",
        "warning",
        "The second MX does not answer on port 25, or is no longer probed: while the first one is down, senders wait instead "
        "of delivering.",
        "Log in there: `postfix status`, its firewall, its provider's status page. Mail that arrives at the first MX is not affected.",
    ),
    Alert(
        "BackupMxQueueStuck",
        _second_mx_queue,
        "2h",
        "warning",
        "The second MX holds mail although the mail server runs: the path between the two is broken.",
        "On the second MX `postqueue -p` names the reason, usually the tunnel or a refusal by the mail server. The mail is kept there for "
        "30 days; `postqueue -f` sends it once the cause is gone.",
    ),
)
