"""The jobs that prove the mail system every day: probe, backup with restore drill, retention."""

from typing import Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator

from components.settings.schedule import Schedule
from components.settings.secrets import Secret, StoreKey, secret_name
from components.settings.types import Fqdn, Image, MailAddress, Model, ObjectName, Percent, Quantity

PROBE_MINUTES = 15  # how long a probe may take; a run that is due earlier would be skipped


class Outbound(Model):
    """The probe in the other direction: submitted here, sent through the relay to a stranger, and expected back."""

    recipient: MailAddress = Field(description="an address elsewhere that forwards all its mail to probe.recipient")
    schedule: Schedule = Field(default="11 * * * *", description="each run takes one message of the relay's daily quota")


class ProbeSecret(Secret):
    """Keys `BREVO_API_KEY` (source: base64 of a JSON object {"api_key": …}) and `EMAIL_MONITOR_IMAP_PASSWORD`."""

    name: ObjectName = secret_name("mailserver-probe-secrets")


class Probe(Model):
    """The round-trip probe: the relay's HTTP API to the MX to the mailbox to IMAP."""

    schedule: Schedule = Field(default="*/20 * * * *", description="each run takes one message of the relay's daily quota")
    recipient: MailAddress | None = Field(
        default=None, description="whom the probe writes to; must land in `mailbox`. null: smoke-test@<primary domain>"
    )
    mailbox: MailAddress = Field(description="the mailbox that probe mail lands in; its password is an entry of the accounts map")
    credentials: ProbeSecret = Field(
        default=ProbeSecret(), description="keys `BREVO_API_KEY` and `EMAIL_MONITOR_IMAP_PASSWORD`; the source is that of the API key"
    )
    sender: MailAddress | None = Field(default=None, description="null: monitoring@<primary domain>")
    api: str = Field(default="https://api.brevo.com/v3", pattern=r"^https://", description="Brevo's API, without a slash at the end")
    edge: bool = Field(default=True, description="look at banner, STARTTLS and certificate through the public name, per address family")
    outbound: Outbound | None = Field(default=None, description="null: only the way in is tried")


class Nfs(Model):
    """An export that backups go to."""

    server: str = Field(pattern=r"^[a-z0-9.:-]+$", description="name or address of the NFS server")
    path: str = Field(pattern=r"^/[^\s]*$", description="the exported folder")
    csi_driver: str | None = Field(default="nfs.csi.k8s.io", description="the cluster's CSI driver for NFS; null mounts it without one")
    storage_class: str = Field(default="nfs-truenas", description="only a name that volume and claim share; nothing provisions by it")
    size: Quantity = Field(default="10Gi", description="what the objects say; NFS knows no such limit")
    mount_options: tuple[str, ...] = Field(
        default=("nfsvers=4", "soft", "timeo=30", "retrans=3", "actimeo=5"),
        description="soft: a dead server ends the job with an error instead of holding its pod for ever",
    )


class BackupTarget(Model):
    """The volume that a repository lies on."""

    claim: ObjectName = Field(description="the claim's name, and the volume's")
    nfs: Nfs | None = Field(default=None, description="null: the claim exists already, whatever it is on")


class Drill(Model):
    """The rehearsed restore."""

    schedule: Schedule = Field(default="30 5 * * 0", description="weekly, after that night's backup")
    scratch_size: Quantity | None = Field(default=None, description="of the volume it restores to; null: mail.storage.growth_limit")
    scratch_class: str | None = Field(default=None, description="storage class of that volume; null: mail.storage.storage_class")


class BackupKey(Secret):
    """Key `password`: encrypts the backups."""

    name: ObjectName = secret_name("mailserver-backup-key")


class Backup(Model):
    """A restic repository of the mail volume."""

    schedule: Schedule = Field(default="0 3 * * *", description="nightly, when nobody reads")
    target: BackupTarget = Field(description="where the repository lies")
    max_loss_percent: Percent = Field(
        default=50, description="share of its messages that a mailbox may lose from one backup to the next before the backup is refused"
    )
    key: BackupKey = Field(default=BackupKey(), description="key `password`: encrypts every repository; without it none can be read")
    keep_daily: int = Field(default=7, ge=1, description="daily snapshots that are kept in each repository")
    keep_weekly: int = Field(default=8, ge=1, description="weekly snapshots that are kept in each repository")
    verify_parts: int = Field(default=7, ge=1, le=366, description="a backup reads back one part in so many of its repository, in turns")
    drill: Drill | None = Field(default=Drill(), description="null: no restore is rehearsed")


class WebmailBackup(Model):
    """A restic repository of the webmail's volumes."""

    schedule: Schedule = Field(default="10 3 * * *", description="ten minutes after the mail, so that the two do not share the server")
    target: BackupTarget = Field(description="where the repository lies")
    claims: dict[ObjectName, ObjectName] = Field(min_length=1, description="name in the archive to the claim that is saved under it")
    app: ObjectName = Field(default="roundcubemail", description="label `app` of the pod that holds these claims; the job runs on its node")
    max_loss_percent: Percent = Field(default=50, description="share of its files that a claim may lose before the backup is refused")


class RetentionRule(Model):
    """Which mail of a mailbox goes when."""

    mailbox: MailAddress = Field(description="the account; its password is an entry of the accounts map")
    folder: str = Field(default="INBOX", min_length=1, description="the IMAP folder")
    kind: Literal["automated", "human", "any"] = Field(
        description="automated: has List-Unsubscribe, Precedence bulk, list or junk, or Auto-Submitted auto-*; human: has none of them"
    )
    days: int = Field(ge=1, le=3650, description="age by the date of arrival; older mail is deleted")


class RetentionSecret(Model):
    """Passwords of the mailboxes with retention; key: the address with `_at_` for `@`. They come from the accounts map."""

    name: ObjectName = secret_name("mailserver-retention")


class Retention(Model):
    """Deletes old mail over IMAP, with each mailbox's own password."""

    schedule: Schedule = Field(default="17 */4 * * *", description="off the full hour, when other jobs start")
    rules: tuple[RetentionRule, ...] = Field(min_length=1, description="what to delete; all else is kept")
    passwords: RetentionSecret = Field(
        default=RetentionSecret(), description="passwords of these mailboxes; key: the address with `_at_` for `@`"
    )
    max_messages: int = Field(default=500, ge=1, description="a run deletes no more from a folder, the oldest first; flagged mail never")
    max_share_percent: Percent = Field(default=50, description="where a larger share of a folder is due, nothing is deleted and the run fails")
    dry_run: bool = Field(default=False, description="count and report only")


class Heartbeats(Model):
    """URLs that are called while mail comes in; their paths hold tokens. Without sources the Secret exists already."""

    name: ObjectName = secret_name("mailserver-heartbeats")
    uptime_kuma: StoreKey | None = Field(default=None, description="key `uptime_kuma`: URL of a push monitor")
    urls: StoreKey | None = Field(default=None, description="key `urls`: further URLs, one a line")


class Jobs(Model):
    """The CronJobs beside the mail server; each is off when it is null."""

    time_zone: str = Field(default="Etc/UTC", description="of all schedules (IANA name); never the node's own")
    python_image: Image = Field(default="docker.io/library/python:3.12.11-alpine3.22", description="runs probe, retention and backups")
    restic_image: Image = Field(default="docker.io/restic/restic:0.18.1", description="the restic binary is taken from it")
    pushgateway: str | None = Field(default=None, pattern=r"^https?://[^\s?]+[^/]$", description="base URL; null: results stay in the logs")
    probe: Probe | None = Field(default=None, description="round-trip probe")
    backup: Backup | None = Field(default=None, description="of the mail volume")
    webmail_backup: WebmailBackup | None = Field(
        default=None, description="of the webmail's volumes; needs jobs.backup, whose key and retention it shares"
    )
    retention: Retention | None = Field(default=None, description="deletion of old mail")
    heartbeats: Heartbeats | None = Field(default=None, description="URLs that the probe calls while mail comes in; null: none")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("write an IANA time zone such as Europe/Sofia or Etc/UTC")
        return value


def probe_recipient(probe: Probe, primary: Fqdn) -> MailAddress:
    return probe.recipient or f"smoke-test@{primary}"


def probe_sender(probe: Probe, primary: Fqdn) -> MailAddress:
    return probe.sender or f"monitoring@{primary}"
