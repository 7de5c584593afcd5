"""The dashboard on what the lab's mail server and jobs push to a real Prometheus; leaves a picture of it (docs/dashboard.png)."""

import shutil
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.listeners import SUBMISSION
from components.monitoring.dashboard import Panel, rows
from tests.lab.jobs.world import ALICE, SPAM, World, fill
from tests.lab.observed import Observed
from tests.lab.picture import Series, draw, legend, needs_chromium
from tests.lab.support import Known, Log
from tests.lab.watch import needs_prometheus
from tools.lab.client import message
from tools.lab.edge import Lab
from tools.offline.stackfile import ROOT

pytestmark = [needs_prometheus, needs_chromium]
PICTURE = ROOT / ".tools" / "lab" / "dashboard.png"
ROUNDS, BACKUPS = 9, 3
SPAM_TEXT = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\n"  # which every filter rejects
# What pushes for them is not here: the webmail's backup, the cluster's own exporter; reports and block lists.
ELSEWHERE = {"Rows saved", "Failed jobs"}
WITHOUT = {"What others say about us"}


def mail_comes_and_goes(lab: Lab, known: Known, number: int) -> None:
    """Some wanted, some refused, some that waits for the relay."""
    for _ in range(number % 3 + 1):
        known().send(message(), ["alice@example.org"])
    if number % 2:
        with pytest.raises(smtplib.SMTPDataError):
            known().send(message(body=SPAM_TEXT), ["alice@example.org"])
    if number == 2:
        lab.relay.stop()
    if 2 <= number < 6:
        known().send(message("alice@example.org", "friend@sender.example"), ["friend@sender.example"], port=SUBMISSION.port, login=ALICE)
    if number == 6:
        lab.relay.start()
        lab.pod.host.run("postqueue", "-f")


@pytest.fixture
def backups(tmp_path: Path, observed: Observed) -> Iterator[World]:
    def job(script: str, *arguments: object, programs: Path, within: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        command = [*within, sys.executable, "-B", str(programs / script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=3600, check=False)

    made = World(tmp_path, observed.watch, job)
    yield made
    shutil.rmtree(made.scratch)


@pytest.fixture(autouse=True)
def relay(lab: Lab) -> Iterator[None]:
    yield
    if not lab.relay.daemon.running():
        lab.relay.start()


def test_every_panel_has_data_and_is_drawn(lab: Lab, observed: Observed, backups: World, known: Known, log: Log) -> None:
    log.expect("connect to smtp.relay.example", "SASL", "reject")
    start = time.time()
    for number in range(ROUNDS):
        mail_comes_and_goes(lab, known, number)
        observed.pulse()
        if number % (ROUNDS // BACKUPS) == 0:
            fill(backups.root / "mail", ALICE, 40 + 20 * number)
            fill(backups.root / "mail", SPAM, 90 + 10 * number)
            assert observed.edge.probe().returncode == 0
            for run in (backups.backup, backups.drill, observed.retention):
                done = run()
                assert done.returncode == 0, done.stdout + done.stderr
    observed.pulse()
    observed.watch.settled()

    drawn: dict[str, list[tuple[Panel, Series]]] = {}
    for title, panels in rows(observed.site).items():
        for panel in panels if title not in WITHOUT else ():
            found = {
                legend(pattern, labels): points
                for query, pattern in panel.queries.items()
                for labels, points in observed.watch.course(query, time.time() - start)
            }
            drawn.setdefault(title, []).append((panel, found))
            assert found or panel.title in ELSEWHERE, panel.title
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    draw(drawn, PICTURE)
