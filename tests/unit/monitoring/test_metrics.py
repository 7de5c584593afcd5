"""Rules and dashboard read only what is pushed, and whatever is pushed is read: a renamed metric silences its alert."""

import pytest

from tests.unit.monitoring.metrics import OTHERS, UNREAD, metrics_of, pushed, read

EVERYTHING = {
    "jobs/probe/outbound": {"recipient": "loop@example.com"},
    "monitoring/second_mx": {"probe_job": "mx2", "queue_node": "mx2"},
    "edge/bans": {"crowdsec": {"lapi": "http://crowdsec:8080"}},
}


def test_every_metric_that_is_read_has_a_source(site):
    assert read(site("prod", EVERYTHING)) - pushed() == OTHERS


def test_what_is_pushed_is_read_or_listed_with_a_reason(site):
    assert pushed() - read(site("prod", EVERYTHING)) == UNREAD.keys()


@pytest.mark.parametrize(
    ("query", "metrics"),
    [
        ('max(a_up{job="and or"}) by (host) > 0 and on (x) b_total[6h:1m]', {"a_up", "b_total"}),
        ("(d or on () vector(0)) == 0 unless absent(c)", {"c", "d"}),
    ],
)
def test_metrics_of_a_query(query, metrics):
    assert metrics_of(query) == metrics
