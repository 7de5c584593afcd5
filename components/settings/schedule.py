"""Cron schedules as Kubernetes reads them: how often a job runs, and how long it may be silent."""

import functools
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Annotated

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, WithJsonSchema

_START = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday, so that the span below holds whole weeks
_SPAN = timedelta(days=63)


def _schedule(value: str) -> str:
    hint = "write five cron fields such as `17 */4 * * *`"
    fields = value.split()
    if len(fields) != 5 or value != " ".join(fields):
        raise ValueError(hint)
    try:
        runs = _runs(value)
    except CronSimError:
        raise ValueError(hint) from None
    if len(runs) < 2:
        raise ValueError("must run at least once a month; rarer jobs cannot be monitored")
    return value


@functools.cache
def _runs(schedule: str) -> tuple[datetime, ...]:
    runs = []
    for run in CronSim(schedule, _START - timedelta(minutes=1)):
        if run >= _START + _SPAN:
            break
        runs.append(run)
    return tuple(runs)


Schedule = Annotated[
    str,
    AfterValidator(_schedule),
    WithJsonSchema({"title": "cron schedule", "type": "string", "pattern": r"^\S+( \S+){4}$"}),
]


def most_runs_per_day(schedule: Schedule) -> int:
    """Runs on the busiest day."""
    return max(Counter(run.date() for run in _runs(schedule)).values())


def period(schedule: Schedule) -> timedelta:
    """The longest time between two runs."""
    return max(later - earlier for earlier, later in pairwise(_runs(schedule)))
