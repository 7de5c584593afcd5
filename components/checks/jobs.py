"""Rules for the jobs: probe, backup, retention, reports."""

import re

from components.checks.finding import Area, Found
from components.settings.jobs import PROBE_MINUTES, Probe, probe_recipient, probe_sender
from components.settings.schedule import most_runs_per_day, period
from components.settings.site import Site
from components.settings.types import domain_of, is_pinned

AREA = Area[Site]("jobs", "probe, backup, restore drill, retention, reports, reputation")


@AREA.error("webmail-backup-alone", remedy="set it, or remove jobs.webmail_backup")
def webmail_backup_alone(site: Site) -> Found:
    """The webmail's backup shares key and retention with the mail's, and saves the volumes of the webmail."""
    if site.jobs.webmail_backup and site.jobs.backup is None:
        yield "jobs.webmail_backup", "needs jobs.backup, whose key and retention it shares"
    if site.jobs.webmail_backup and site.webmail is None:
        yield "jobs.webmail_backup", "needs webmail"


@AREA.error("webmail-database-image", remedy="set it to the official image of the server's make and release, such as mariadb:11.4.5")
def webmail_database_image(site: Site) -> Found:
    """A dump is made by the programs of the server's own release, which no other image has."""
    if (backup := site.jobs.webmail_backup) and site.webmail and site.webmail.database.type != "sqlite" and backup.database_image is None:
        yield "jobs.webmail_backup.database_image", f"is required for {site.webmail.database.type}"


@AREA.error("shared-repository", remedy="give each repository a volume of its own")
def shared_repository(site: Site) -> Found:
    """Two repositories on one volume would be taken for each other."""
    mail, webmail = site.jobs.backup, site.jobs.webmail_backup
    if mail and webmail and mail.target.claim == webmail.target.claim:
        yield "jobs.webmail_backup.target.claim", f"{mail.target.claim} is already that of jobs.backup"


@AREA.warning("no-backup", remedy="set jobs.backup")
def no_backup(site: Site) -> Found:
    """Without a backup lost mail is lost."""
    if site.production and site.jobs.backup is None:
        yield "jobs.backup", "is off, so lost mail cannot be restored"


@AREA.warning("no-drill", remedy="set jobs.backup.drill")
def no_drill(site: Site) -> Found:
    """A backup that was never restored may not be one."""
    if site.jobs.backup and site.jobs.backup.drill is None:
        yield "jobs.backup.drill", "is off, so it is unknown whether the backup can be restored"


@AREA.warning("image-not-pinned", remedy="pin it by digest: image:tag@sha256:…")
def image_not_pinned(site: Site) -> Found:
    """Anyone who can push the tag again can run code that reads all mail."""
    jobs = site.jobs
    database = jobs.webmail_backup and jobs.webmail_backup.database_image
    for name, image, users in (
        ("python_image", jobs.python_image, (jobs.probe, jobs.backup, jobs.webmail_backup, jobs.retention)),
        ("restic_image", jobs.restic_image, (jobs.backup, jobs.webmail_backup)),
        ("webmail_backup.database_image", database, (database,)),
        ("parsedmarc_image", jobs.parsedmarc_image, (jobs.reports, jobs.reputation)),
    ):
        if site.production and image and any(users) and not is_pinned(image):
            yield f"jobs.{name}", f"{image} is not pinned by digest, so anyone who can push the tag again can read all mail"


@AREA.error("probe-mailbox", remedy="declare it there")
def probe_mailbox(site: Site) -> Found:
    """The probe reads one of the mailboxes."""
    if (probe := site.jobs.probe) and probe.mailbox not in site.mail.mailboxes:
        yield "jobs.probe.mailbox", f"{probe.mailbox} is not in mail.mailboxes"


def _lands_in(site: Site, address: str) -> tuple[str, ...]:
    """The targets of mail to `address`, one step far."""
    mail = site.mail
    return mail.aliases.get(address) or ((address,) if address in mail.mailboxes else mail.aliases.get(f"@{domain_of(address)}", ()))


@AREA.error("probe-recipient")
def probe_recipient_(site: Site) -> Found:
    """The probe's message must arrive in the mailbox that the probe reads."""
    if (probe := site.jobs.probe) is None:
        return
    recipient = probe_recipient(probe, site.primary)
    if domain_of(recipient) not in site.domains:
        yield "jobs.probe.recipient", f"{recipient} is not in one of the site's domains, so nothing would arrive here", "use one that is"
    elif not site.mail.stored_aliases and probe.mailbox not in _lands_in(site, recipient):
        yield "jobs.probe.recipient", f"mail to {recipient} does not arrive in {probe.mailbox}", "alias it to jobs.probe.mailbox"


@AREA.error("probe-sender", remedy="use an address of one of them")
def probe_sender_(site: Site) -> Found:
    """The relay signs only for the domains that it knows."""
    if (probe := site.jobs.probe) and domain_of(probe_sender(probe, site.primary)) not in site.domains:
        yield "jobs.probe.sender", f"{probe.sender} is not in one of the site's domains, so the relay would not sign for it"


@AREA.error("probe-too-often", remedy=f"run it every {PROBE_MINUTES} minutes at most")
def probe_too_often(site: Site) -> Found:
    """A run that is due before the last one has ended is skipped."""
    if (probe := site.jobs.probe) and period(probe.schedule).total_seconds() < PROBE_MINUTES * 60:
        yield "jobs.probe.schedule", f"{probe.schedule} is faster than a probe may take ({PROBE_MINUTES} minutes)"


@AREA.error("outbound-to-ourselves", remedy="use an address at another provider")
def outbound_to_ourselves(site: Site) -> Found:
    """The outbound probe tests delivery to another provider."""
    if (outbound := site.jobs.probe and site.jobs.probe.outbound) and domain_of(outbound.recipient) in site.domains:
        yield "jobs.probe.outbound.recipient", f"{outbound.recipient} is hosted here, so the message would bypass the relay"


@AREA.error("outbound-without-relay", remedy="set mail.relay, or remove it")
def outbound_without_relay(site: Site) -> Found:
    """The outbound probe tests delivery through the relay."""
    if site.jobs.probe and site.jobs.probe.outbound and site.mail.relay is None:
        yield "jobs.probe.outbound", "tests delivery through the relay, but mail.relay is not set"


def _messages_per_day(probe: Probe) -> int:
    """Messages that the probe takes of the relay's daily quota, by its schedules."""
    return most_runs_per_day(probe.schedule) + (most_runs_per_day(probe.outbound.schedule) if probe.outbound else 0)


@AREA.error("probe-takes-quota", remedy="probe less often, or raise the relay's plan")
def probe_takes_quota(site: Site) -> Found:
    """The relay counts the probe's messages too, and refuses all mail when the quota is used up."""
    probe, relay = site.jobs.probe, site.mail.relay
    if probe and relay and relay.daily_quota is not None and relay.daily_quota <= (taken := _messages_per_day(probe)):
        yield "mail.relay.daily_quota", f"the probe alone sends {taken} messages a day, which leaves none of {relay.daily_quota}"


@AREA.error("outbound-over-limit", remedy="probe less often, or raise mail.sending_limit.per_day")
def outbound_over_limit(site: Site) -> Found:
    """The outbound probe sends as its mailbox, whose limit holds for it too."""
    probe, limit = site.jobs.probe, site.mail.sending_limit
    if probe and probe.outbound and limit and (runs := most_runs_per_day(probe.outbound.schedule)) >= limit.per_day:
        yield (
            "jobs.probe.outbound.schedule",
            f"sends {runs} messages a day, and {probe.mailbox} may send to {limit.per_day} recipients",
        )


def _retention_rules(site: Site) -> list[tuple[str, str, str]]:
    """Setting, mailbox and folder of each retention rule."""
    rules = site.jobs.retention.rules if site.jobs.retention else ()
    return [(f"jobs.retention.rules.{index}", rule.mailbox, rule.folder) for index, rule in enumerate(rules)]


@AREA.error("retention-mailbox", remedy="declare it there")
def retention_mailbox(site: Site) -> Found:
    """Retention works on one of the mailboxes."""
    for setting, mailbox, _ in _retention_rules(site):
        if mailbox not in site.mail.mailboxes:
            yield f"{setting}.mailbox", f"{mailbox} is not in mail.mailboxes"


@AREA.error("retention-secret-key", remedy="use an address of letters, digits, '-', '.' and '_'")
def retention_secret_key(site: Site) -> Found:
    """The mailbox's password is in a Secret whose key is the address."""
    for setting, mailbox, _ in _retention_rules(site):
        if not re.fullmatch(r"[-._a-z0-9]+@[-.a-z0-9]+", mailbox):
            yield f"{setting}.mailbox", f"{mailbox} cannot be a key of a Secret"


@AREA.error("retention-folder", remedy="write letters beyond ASCII as IMAP does, such as `Gel&APY-scht`", source="RFC 3501 section 5.1.3")
def retention_folder(site: Site) -> Found:
    """The folder's name goes to the IMAP server as it is written."""
    for setting, _, folder in _retention_rules(site):
        if re.search(r'[^ -~]|["\\|]', folder):
            yield f"{setting}.folder", f"{folder!r} has a quote, a backslash, a bar or a letter beyond ASCII in it"


@AREA.error("reports-mailbox", remedy="declare it there")
def reports_mailbox(site: Site) -> Found:
    """Reports are read from one of the mailboxes."""
    if (reports := site.jobs.reports) and reports.mailbox not in site.mail.mailboxes:
        yield "jobs.reports.mailbox", f"{reports.mailbox} is not in mail.mailboxes"


@AREA.error("reports-shared", remedy="give the reports a mailbox of their own")
def reports_shared(site: Site) -> Found:
    """The reader moves every message out of INBOX, where retention and the probe look for theirs and a person reads mail."""
    if (reports := site.jobs.reports) is None:
        return
    for setting, mailbox, _ in _retention_rules(site):
        if mailbox == reports.mailbox:
            yield f"{setting}.mailbox", f"would delete the reports that jobs.reports keeps in {mailbox}"
    if site.jobs.probe and site.jobs.probe.mailbox == reports.mailbox:
        yield "jobs.probe.mailbox", f"the probe's messages would be filed away by jobs.reports in {reports.mailbox}"
    if reports.mailbox in _lands_in(site, f"@{domain_of(reports.mailbox)}"):
        yield "jobs.reports.mailbox", f"{reports.mailbox} takes the catch-all, whose mail would be filed away as unreadable reports"
