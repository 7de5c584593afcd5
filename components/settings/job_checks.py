"""Rules between the jobs' settings and the rest."""

import re
from collections.abc import Iterator

from components.settings.jobs import PROBE_MINUTES, probe_recipient, probe_sender
from components.settings.schedule import most_runs_per_day, period
from components.settings.site import Site
from components.settings.types import domain_of


def relay_messages_per_day(site: Site) -> int:
    """Messages that the probe takes of the relay's daily quota, by its schedules."""
    probe = site.jobs.probe
    if probe is None:
        return 0
    return most_runs_per_day(probe.schedule) + (most_runs_per_day(probe.outbound.schedule) if probe.outbound else 0)


def job_problems(site: Site) -> Iterator[str]:
    """`setting: what is wrong`, relative to the site."""
    yield from _probe(site)
    yield from _retention(site)
    jobs = site.jobs
    if jobs.webmail_backup and jobs.backup is None:
        yield "jobs.webmail_backup: needs jobs.backup, whose key and retention it shares"
    if jobs.backup and jobs.webmail_backup and jobs.backup.target.claim == jobs.webmail_backup.target.claim:
        yield f"jobs.webmail_backup.target.claim: {jobs.backup.target.claim} is the mail's; each repository needs a volume of its own"
    taken = {"manifest", "scratch", "repository", "key", "tools", "scripts", "sources"}
    if jobs.webmail_backup and (clash := sorted(taken & jobs.webmail_backup.claims.keys())):
        yield f"jobs.webmail_backup.claims: {', '.join(clash)} is a name that the job itself uses; take another"


def _probe(site: Site) -> Iterator[str]:
    probe, relay = site.jobs.probe, site.mail.relay
    if probe is None:
        return
    if probe.mailbox not in site.mail.mailboxes:
        yield f"jobs.probe.mailbox: {probe.mailbox} is not in mail.mailboxes"
    recipient = probe_recipient(probe, site.primary)
    if domain_of(recipient) not in site.domains:
        yield f"jobs.probe.recipient: {recipient} is not in one of our domains, so nothing would arrive here"
    elif not site.mail.stored_aliases:
        targets = (
            site.mail.aliases.get(recipient)
            or (site.mail.mailboxes.keys() & {recipient})
            or site.mail.aliases.get(f"@{domain_of(recipient)}", ())
        )
        if probe.mailbox not in targets:
            yield f"jobs.probe.recipient: mail to {recipient} does not land in {probe.mailbox} (jobs.probe.mailbox); alias it"
    if domain_of(probe_sender(probe, site.primary)) not in site.domains:
        yield f"jobs.probe.sender: {probe.sender} is not in one of our domains, so the relay would not sign for it"
    if period(probe.schedule).total_seconds() < PROBE_MINUTES * 60:
        yield f"jobs.probe.schedule: {probe.schedule} is faster than a probe may take ({PROBE_MINUTES} minutes)"
    if probe.outbound:
        if domain_of(probe.outbound.recipient) in site.domains:
            yield f"jobs.probe.outbound.recipient: {probe.outbound.recipient} is our own, so its mail would never leave; name a stranger's"
        if relay is None:
            yield "jobs.probe.outbound: tries the way through the relay, and there is none (mail.relay)"
    if relay and relay.daily_quota is not None and relay.daily_quota <= (taken := relay_messages_per_day(site)):
        yield f"mail.relay.daily_quota: the probe alone sends {taken} messages a day, which leaves none of {relay.daily_quota}"


def _retention(site: Site) -> Iterator[str]:
    retention = site.jobs.retention
    for index, rule in enumerate(retention.rules if retention else ()):
        setting = f"jobs.retention.rules.{index}"
        if rule.mailbox not in site.mail.mailboxes:
            yield f"{setting}.mailbox: {rule.mailbox} is not in mail.mailboxes"
        if not re.fullmatch(r"[-._a-z0-9]+@[-.a-z0-9]+", rule.mailbox):
            yield f"{setting}.mailbox: {rule.mailbox} cannot be a key of a Secret; only letters, digits, '-', '.' and '_' can"
        if re.search(r'[^ -~]|["\\|]', rule.folder):
            yield (
                f"{setting}.folder: {rule.folder!r} has a quote, a backslash, a bar or a letter beyond ASCII in it; "
                "the latter are written as IMAP does (RFC 3501, 5.1.3), such as `Gel&APY-scht`"
            )
