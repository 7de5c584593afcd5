"""All jobs of a site, and how long each may be without a success before that is an alert."""

from collections.abc import Iterator

from components.jobs.backup import MAIL, WEBMAIL_JOB, backup_jobs
from components.jobs.inside import inside_jobs
from components.jobs.job import Job
from components.jobs.probe import INBOUND, OUTBOUND, probe_jobs
from components.jobs.restore import DRILL, restore_jobs
from components.jobs.retention import NAME as RETENTION
from components.jobs.retention import retention_jobs
from components.settings.schedule import Schedule, period
from components.settings.site import Site

# Of the longest pause in the schedule. After a failed probe the next comes in minutes.
# A nightly backup is missing at noon, a weekly drill on Wednesday.
FACTORS = {INBOUND: 3, OUTBOUND: 3, MAIL: 1.5, WEBMAIL_JOB: 1.5, DRILL: 1.5, RETENTION: 3}


def all_jobs(site: Site) -> Iterator[Job]:
    for jobs in (probe_jobs, backup_jobs, restore_jobs, retention_jobs, inside_jobs):
        yield from jobs(site)


def overdue(job: str, schedule: Schedule) -> int:
    """Seconds from one success of a job to the moment when the next is overdue."""
    return int(FACTORS[job] * period(schedule).total_seconds())
