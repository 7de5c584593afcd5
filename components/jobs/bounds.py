"""When silence of a job is a fault: a multiple of its own period. The monitoring's alerts take their numbers from here."""

from collections.abc import Iterator
from dataclasses import dataclass

from components.jobs.backup import MAIL, WEBMAIL
from components.jobs.probe import INBOUND, OUTBOUND
from components.jobs.restore import DRILL
from components.jobs.retention import NAME as RETENTION
from components.settings.schedule import period
from components.settings.site import Site

# How many periods a job may go without a success: rare jobs get less, for each of their periods is long.
FACTORS = {INBOUND: 3.0, OUTBOUND: 3.0, MAIL: 1.5, WEBMAIL: 1.5, DRILL: 1.5, RETENTION: 3.0}

LAST_SUCCESS = {
    INBOUND: "email_roundtrip_last_success_timestamp",
    OUTBOUND: "email_outbound_last_success_timestamp",
    MAIL: "backup_last_success_timestamp",
    WEBMAIL: "backup_last_success_timestamp",
    DRILL: "mail_restore_last_success_timestamp",
    RETENTION: "spam_retention_last_success_timestamp",
}


@dataclass(frozen=True)
class Bound:
    """`metric{job="…"}` (Unix time of the last success, in the Pushgateway) must not be older than `seconds`."""

    job: str
    metric: str
    seconds: int


def overdue_bounds(site: Site) -> Iterator[Bound]:
    """One for each job that this site has."""
    jobs = site.jobs
    schedules = {
        INBOUND: jobs.probe and jobs.probe.schedule,
        OUTBOUND: jobs.probe and jobs.probe.outbound and jobs.probe.outbound.schedule,
        MAIL: jobs.backup and jobs.backup.schedule,
        WEBMAIL: jobs.webmail_backup and jobs.webmail_backup.schedule,
        DRILL: jobs.backup and jobs.backup.drill and jobs.backup.drill.schedule,
        RETENTION: jobs.retention and jobs.retention.schedule,
    }
    for job, schedule in schedules.items():
        if schedule:
            yield Bound(job, LAST_SUCCESS[job], int(FACTORS[job] * period(schedule).total_seconds()))
