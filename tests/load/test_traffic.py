"""Many clients at once, as far as a test run has time: `make bench` has more of them for longer."""

import time

from tests.load.test_faults import assert_kept
from tools.lab.edge import Lab
from tools.lab.traffic import Traffic

CLIENTS = 40
SECONDS = 10


def test_every_accepted_message_is_kept_once(lab: Lab) -> None:
    with Traffic(lab, CLIENTS) as traffic:
        traffic.wait_until_accepted()
        time.sleep(SECONDS)
    assert set(traffic.sessions) == {""}
    assert_kept(traffic)
    assert traffic.unexplained() == []
