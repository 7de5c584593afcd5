"""The jobs that prove every day that the mail system works: probe, backup with restore drill, retention."""

from functools import cache
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import Field, field_validator, model_validator

from components.settings.extension import PodFields
from components.settings.quantity import Bytes
from components.settings.schedule import Schedule
from components.settings.secrets import Secret, StoreKey, secret_name
from components.settings.types import Fqdn, Image, MailAddress, Model, ObjectName, Percent, text

SecretKey = Annotated[str, *text("key of a Secret", r"[-._a-zA-Z0-9]+", "write a key of letters, digits, '-', '_' and '.'")]

PROBE_MINUTES = 15  # how long a probe may take; a run that is due earlier would be skipped


class Outbound(Model):
    """The probe in the other direction: submitted here, sent through the relay to another provider, and expected back."""

    recipient: MailAddress = Field(
        description="an address at another provider that forwards all its mail to probe.recipient", examples=["loop@example.com"]
    )
    schedule: Schedule = Field(default="11 * * * *", description="each run uses one message of the relay's daily quota")


class ProbeSecret(Secret):
    """The API key (from `source`) and the password of the probe's mailbox (from the accounts Secret's source)."""

    name: ObjectName = secret_name("mailserver-probe")
    encoding: Literal["plain", "base64-json"] = Field(
        default="plain", description='how the secret store keeps the API key: as it is, or as base64 of {"api_key": "…"}'
    )
    api_key: SecretKey = Field(default="api_key", description="key of the Secret that holds the API key")
    password: SecretKey = Field(default="password", description="key of the Secret that holds the mailbox's password")

    @model_validator(mode="after")
    def _two_keys(self) -> "ProbeSecret":
        if self.api_key == self.password:
            raise ValueError("password: must be another key than api_key")
        return self


class Probe(Model):
    """The round-trip probe: from a sending service's HTTP API through the MX into a mailbox that it reads over IMAP."""

    schedule: Schedule = Field(default="*/20 * * * *", description="each run uses one message of the relay's daily quota")
    recipient: MailAddress | None = Field(
        default=None, description="address the probe writes to; it must be delivered to `mailbox`. null: `smoke-test@<primary domain>`"
    )
    mailbox: MailAddress = Field(description="mailbox that receives the probe's messages", examples=["me@example.org"])
    credentials: ProbeSecret = Field(default=ProbeSecret(), description="Secret with the API key and the mailbox's password")
    sender: MailAddress | None = Field(default=None, description="sender of the probe's messages; null: `monitoring@<primary domain>`")
    api: Annotated[
        str, *text("URL", r"https://[^\s?]*[^\s?/]", "write a URL such as https://api.example.org/v3, without a slash at the end")
    ] = Field(
        description="base URL of the HTTP API that sends the message: Brevo's, or one with the same `POST …/smtp/email`",
        examples=["https://api.brevo.com/v3"],
    )
    edge: bool = Field(default=True, description="also check greeting, STARTTLS and certificate at the public name, over IPv4 and IPv6")
    outbound: Outbound | None = Field(default=None, description="also test the outbound path; null: only inbound")


class Nfs(Model):
    """An NFS export that holds backups."""

    server: Annotated[str, *text("host", r"[a-z0-9.:-]+", "write a host name or an address")] = Field(
        description="name or address of the NFS server", examples=["192.0.2.90"]
    )
    path: Annotated[str, *text("path", r"/\S*", "write an absolute path without blanks")] = Field(
        description="exported directory", examples=["/srv/backup/mail"]
    )
    csi_driver: str | None = Field(
        default="nfs.csi.k8s.io", description="the cluster's CSI driver for NFS; null: the node mounts the export itself"
    )
    storage_class: str = Field(
        default="mailserver-backup", description="a name that binds claim and volume to each other; nothing is provisioned by it"
    )
    size: Bytes = Field(default="10Gi", description="size that volume and claim declare; NFS does not enforce it")
    mount_options: tuple[str, ...] = Field(
        default=("nfsvers=4", "soft", "timeo=30", "retrans=3", "actimeo=5"),
        description="mount options; soft: an unreachable server fails the job instead of blocking its pod",
    )


class BackupTarget(Model):
    """The volume that holds a repository."""

    claim: ObjectName = Field(description="name of the claim, and of the volume", examples=["mailserver-backup"])
    nfs: Nfs | None = Field(default=None, description="NFS export to create volume and claim for; null: the claim exists already")


class Drill(Model):
    """The restore drill."""

    schedule: Schedule = Field(default="30 5 * * 0", description="weekly, after that night's backup")
    scratch_size: Bytes | None = Field(
        default=None, description="size of the volume it restores to; null: mail.storage.growth_limit", examples=["20Gi"]
    )
    scratch_class: str | None = Field(
        default=None, description="storage class of that volume; null: mail.storage.storage_class", examples=["local"]
    )


class BackupKey(Secret):
    """Key `password`: encrypts the backups."""

    name: ObjectName = secret_name("mailserver-backup-key")


class Backup(Model):
    """A restic repository of the mail volume."""

    schedule: Schedule = Field(default="0 3 * * *", description="nightly, when no one reads mail")
    target: BackupTarget = Field(description="volume that holds the repository")
    max_loss_percent: Percent = Field(
        default=50, description="share of its messages that a mailbox may lose between two backups; beyond it the backup is refused"
    )
    key: BackupKey = Field(
        default=BackupKey(), description="Secret with the key `password`, which encrypts every repository; without it no backup can be read"
    )
    keep_daily: int = Field(default=7, ge=1, description="number of daily snapshots kept in each repository")
    keep_weekly: int = Field(default=8, ge=1, description="number of weekly snapshots kept in each repository")
    verify_parts: int = Field(
        default=7, ge=1, le=366, description="each backup reads back one of this many parts of its repository, in turn"
    )
    drill: Drill | None = Field(default=Drill(), description="weekly test restore; null: restores are not tested")


class WebmailBackup(Model):
    """A restic repository of the webmail's volumes and its database: PGP keys, plugin sets, users, contacts and settings."""

    schedule: Schedule = Field(default="10 3 * * *", description="ten minutes after the mail, so that both do not load the server at once")
    target: BackupTarget = Field(description="volume that holds the repository")
    max_loss_percent: Percent = Field(
        default=50,
        description="share of its files that a volume, or of its rows that a table, may lose between two backups; beyond it the backup is "
        "refused",
    )
    database_image: Image | None = Field(
        default=None,
        description="official image of the database server's make and release, which dumps it and tries the dump; not used by sqlite",
        examples=["docker.io/library/mariadb:11.4.5", "docker.io/library/postgres:17.5"],
    )


class RetentionRule(Model):
    """Which mail of a mailbox is deleted, and when."""

    mailbox: MailAddress = Field(description="mailbox to clean up", examples=["me@example.org"])
    folder: str = Field(default="INBOX", min_length=1, description="IMAP folder")
    kind: Literal["automated", "human", "any"] = Field(
        description="automated: has List-Unsubscribe, Precedence bulk, list or junk, or Auto-Submitted auto-*; human: has none of them",
        examples=["automated"],
    )
    days: int = Field(ge=1, le=3650, description="age in days, by date of arrival, beyond which mail is deleted", examples=[30])


class RetentionSecret(Model):
    """Passwords of the mailboxes with retention; key: the address with `_at_` for `@`. They come from the accounts Secret's source."""

    name: ObjectName = secret_name("mailserver-retention")


class Retention(Model):
    """Deletes old mail over IMAP, with each mailbox's own password."""

    schedule: Schedule = Field(default="17 */4 * * *", description="off the full hour, when other jobs start")
    rules: tuple[RetentionRule, ...] = Field(
        min_length=1,
        description="what to delete; everything else is kept",
        examples=[[{"mailbox": "me@example.org", "kind": "automated", "days": 30}]],
    )
    passwords: RetentionSecret = Field(
        default=RetentionSecret(), description="Secret with the passwords of these mailboxes; key: the address with `_at_` for `@`"
    )
    max_messages: int = Field(default=500, ge=1, description="a run deletes no more from a folder, the oldest first; flagged mail never")
    max_share_percent: Percent = Field(
        default=50, description="where a larger share of a folder is due, nothing is deleted and the run fails"
    )
    dry_run: bool = Field(default=False, description="only count and report")


class Heartbeats(Model):
    """URLs that are called while mail arrives. They contain tokens, so they come from a Secret; without sources you create it."""

    name: ObjectName = secret_name("mailserver-heartbeats")
    uptime_kuma: StoreKey | None = Field(
        default=None,
        description="where the secret store keeps the URL of a push monitor (key `uptime_kuma`)",
        examples=[{"key": "mail", "property": "push_url"}],
    )
    urls: StoreKey | None = Field(
        default=None,
        description="where the secret store keeps further URLs, one per line (key `urls`)",
        examples=[{"key": "mail", "property": "heartbeat_urls"}],
    )


_time_zones = cache(available_timezones)  # reads every file of the system's database


class Jobs(Model):
    """The CronJobs beside the mail server; each is off while it is null."""

    time_zone: str = Field(default="Etc/UTC", description="time zone of all schedules (IANA name)")
    pod: PodFields = Field(default=PodFields(), description="fields of every job's pod")
    python_image: Image = Field(
        default="docker.io/library/python:3.12.11-alpine3.22", description="image that runs probe, retention and backups"
    )
    restic_image: Image = Field(default="docker.io/restic/restic:0.18.1", description="image that the restic binary is taken from")
    pushgateway: (
        Annotated[str, *text("URL", r"https?://[^\s?]*[^\s?/]", "write a URL such as http://pushgateway:9091, without a slash at the end")]
        | None
    ) = Field(
        default=None,
        description="base URL of a Prometheus Pushgateway; null: results are only logged",
        examples=["http://pushgateway.monitoring:9091"],
    )
    probe: Probe | None = Field(default=None, description="round-trip probe; null: off")
    backup: Backup | None = Field(default=None, description="backup of the mail volume; null: off")
    webmail_backup: WebmailBackup | None = Field(
        default=None, description="backup of the webmail's volumes, with the key and the retention of jobs.backup; null: off"
    )
    retention: Retention | None = Field(default=None, description="deletion of old mail; null: off")
    heartbeats: Heartbeats | None = Field(default=None, description="URLs that the probe calls while mail arrives; null: none")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in _time_zones():
            raise ValueError("write an IANA time zone such as Europe/Sofia or Etc/UTC")
        return value


def probe_recipient(probe: Probe, primary: Fqdn) -> MailAddress:
    return probe.recipient or f"smoke-test@{primary}"


def probe_sender(probe: Probe, primary: Fqdn) -> MailAddress:
    return probe.sender or f"monitoring@{primary}"
