"""How long each job may be without a success before that is an alert: a factor of the longest pause in its schedule."""

from components.jobs.backup import MAIL, WEBMAIL_JOB
from components.jobs.probe import INBOUND, OUTBOUND
from components.jobs.restore import DRILL
from components.jobs.retention import NAME as RETENTION
from components.settings.schedule import Schedule, period

# One failed probe is followed by the next in minutes. A nightly backup is missing at noon, a weekly drill on Wednesday.
FACTORS = {INBOUND: 3, OUTBOUND: 3, MAIL: 1.5, WEBMAIL_JOB: 1.5, DRILL: 1.5, RETENTION: 3}


def overdue(job: str, schedule: Schedule) -> int:
    """Seconds from one success of a job to the moment when the next is overdue."""
    return int(FACTORS[job] * period(schedule).total_seconds())
