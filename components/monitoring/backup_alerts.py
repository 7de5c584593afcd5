"""Alerts about backups, the restore drill and retention."""

from components.jobs.backup import MAIL, WEBMAIL_JOB
from components.jobs.restore import DRILL
from components.jobs.retention import NAME as RETENTION
from components.monitoring.alert import Alert, series
from components.monitoring.schedules import never, pushed, schedules, stale, stale_or_never
from components.settings.site import Site

DAY = 86400
RESTORE_PAGE = "docs/runbooks/restore.md"


def _backups(site: Site, query: str) -> str | None:
    """The query with the matcher of this site's backups for JOBS."""
    jobs = [job for job in (MAIL, WEBMAIL_JOB) if job in schedules(site)]
    return query.replace("JOBS", f'job=~"{"|".join(jobs)}"') if jobs and site.jobs.pushgateway else None


ALERTS = (
    Alert(
        "MailserverBackupStale",
        lambda site: stale(site, MAIL),
        "30m",
        "critical",
        "The mail volume has not been backed up since yesterday. Whatever is lost now is lost from that day on.",
        f"BackupFailed or BackupCronJobFailed say why. `make job JOB={MAIL}` runs it now.",
        "last success {{ $value | humanizeDuration }} ago",
    ),
    Alert(
        "MailserverBackupNeverSucceeded",
        lambda site: never(site, MAIL),
        "1h",
        "critical",
        "The mail volume has never been backed up.",
        f"The first run needs `--new-repository` ({RESTORE_PAGE}): a repository that is missing must not be replaced by an empty one.",
    ),
    Alert(
        "WebmailBackupStale",
        lambda site: stale(site, WEBMAIL_JOB),
        "30m",
        "critical",
        "The webmail's volumes have not been backed up since yesterday.",
        f"BackupFailed or BackupCronJobFailed say why. `make job JOB={WEBMAIL_JOB}` runs it now.",
        "last success {{ $value | humanizeDuration }} ago",
    ),
    Alert(
        "WebmailBackupNeverSucceeded",
        lambda site: never(site, WEBMAIL_JOB),
        "1h",
        "critical",
        "The webmail's volumes have never been backed up.",
        "As for MailserverBackupNeverSucceeded.",
    ),
    Alert(
        "BackupFailed",
        lambda site: _backups(site, "backup_success{JOBS} == 0"),
        "1m",
        "critical",
        "The last backup did not save or did not prove everything. Earlier snapshots are untouched.",
        f"The job's log names the reason in one line, for example a mailbox that shrank too much; {RESTORE_PAGE} says what each means.",
        "{{ $labels.job }}",
    ),
    Alert(
        "BackupRepositoryDamaged",
        lambda site: _backups(site, "backup_verified{JOBS} == 0"),
        "1m",
        "critical",
        "A part of the backup repository cannot be read back: some mail may not be restorable. Nothing is deleted from it "
        "until it is sound.",
        f"{RESTORE_PAGE}, *A backup is refused*. Do not run `prune`. Look at the disk behind it, and take a copy before any repair.",
        "{{ $labels.job }}",
    ),
    Alert(
        "BackupRepositoryReplaced",
        lambda site: _backups(site, "count by (job) (count by (job, id) (last_over_time(backup_repository{JOBS}[2d]))) > 1"),
        "1m",
        "critical",
        "The backup now goes to another repository than the day before: the earlier snapshots are not in it.",
        "Was a new repository meant? Then this ends after two days. Else the volume behind the claim changed, or the export was emptied: "
        "look for the old repository before its snapshots are missed.",
        "{{ $labels.job }}",
    ),
    Alert(
        "BackupHistoryShrunk",
        # Each night the oldest daily or weekly snapshot may go: a week less at its end, two snapshots fewer.
        lambda site: _backups(
            site,
            f"backup_oldest_snapshot_timestamp{{JOBS}} - backup_oldest_snapshot_timestamp{{JOBS}} offset 1d > {8 * DAY} "
            "or max_over_time(backup_snapshots{JOBS}[2d]) - backup_snapshots{JOBS} > 2",
        ),
        "1m",
        "critical",
        "The repository lost more of its history at once than the schedule removes: snapshots were deleted by another hand.",
        f"`make restore WHAT=list` shows what is left. Who has the key or the volume? {RESTORE_PAGE}.",
        "{{ $labels.job }}",
    ),
    Alert(
        "BackupMessagesDamaged",
        lambda site: _backups(site, "backup_mismatched_messages{JOBS} > on (job, mailbox) (backup_mismatched_messages{JOBS} offset 1d)"),
        "1m",
        "warning",
        "Since yesterday more messages are empty or not of the size in their names: the mail volume's file system loses data.",
        f"The backup's log names the mailboxes. Restore those messages from an earlier snapshot ({RESTORE_PAGE}), and look at the volume.",
        "{{ $labels.mailbox }}: {{ $value }}",
    ),
    Alert(
        "RestoreDrillFailed",
        lambda site: pushed(site, DRILL, f"{series('mail_restore_success', job=DRILL)} == 0"),
        "1m",
        "critical",
        "The rehearsed restore failed: the backup may not be usable.",
        f"`kubectl -n mailserver logs -l app.kubernetes.io/name={DRILL}` names the mailbox or the step. {RESTORE_PAGE}.",
    ),
    Alert(
        "RestoreDrillStale",
        lambda site: stale_or_never(site, DRILL),
        "1h",
        "warning",
        "No restore has been rehearsed successfully for too long.",
        f"`make job JOB={DRILL}` runs it now.",
    ),
    Alert(
        "RetentionFailing",
        lambda site: pushed(site, RETENTION, f"{series('spam_retention_errors_total', job=RETENTION)} > 0"),
        "1m",
        "warning",
        "Old mail is not deleted from a mailbox: its password, a missing folder, or a share so large that the job refuses to delete it.",
        f"The job's log has one line for each mailbox. {RESTORE_PAGE}, *Retention refuses*.",
        "{{ $labels.mailbox }}",
    ),
    Alert(
        "RetentionStale",
        lambda site: stale_or_never(site, RETENTION),
        "30m",
        "warning",
        "Retention has not succeeded for too long; its mailboxes grow.",
        f"RetentionFailing says why. `make job JOB={RETENTION}` runs it now.",
    ),
)
