"""Faults while mail comes in: what was accepted is kept, no sender is told to give up, and the daemons recover by themselves."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.lab.edge import Lab
from tools.lab.hosts import family, signal_all, wait_for
from tools.lab.image import MailServer
from tools.lab.traffic import Traffic

CLIENTS = 8
HANG = 4  # seconds
DAEMONS = {
    "postfix": "master",
    "dovecot": "dovecot",
    "rspamd": "rspamd",
    "rspamd-redis": "redis-server",
    "postsrsd": "postsrsd",
    "rsyslog": "rsyslogd",
}


@pytest.fixture
def traffic(lab: Lab) -> Iterator[Traffic]:
    with Traffic(lab, CLIENTS) as traffic:
        traffic.wait_until_accepted()
        yield traffic
    assert_kept(traffic)
    # A killed delivery is done again: its answer was lost. Each client waits for one message at a time.
    assert len(traffic.unexplained()) <= CLIENTS * len(DAEMONS)


def assert_kept(traffic: Traffic) -> None:
    assert [letter for letter in traffic.letters if letter.refused] == []
    assert [letter for letter in traffic.letters if not letter.accepted] == []
    traffic.wait_until_kept()


def called(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


def processes(lab: Lab, name: str) -> list[int]:
    """A daemon's main process and all below it, without the shell that started it; the supervisor may be starting it this moment."""

    def found() -> list[int] | None:
        pids = family(lab.pod.daemons[name].pid)
        return next((pids[place:] for place, pid in enumerate(pids) if called(pid) == DAEMONS[name]), None)

    return wait_for(name, found)


@contextlib.contextmanager
def supervisor(lab: Lab) -> Iterator[None]:
    """The image's: it starts a daemon that has ended."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            for name, daemon in list(lab.pod.daemons.items()):
                if not daemon.running():
                    lab.pod.start(name)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def kill_main(lab: Lab, name: str) -> None:
    os.kill(processes(lab, name)[0], signal.SIGKILL)


def kill_children(lab: Lab, name: str) -> None:
    signal_all(processes(lab, name)[1:], signal.SIGKILL)


def hang(lab: Lab, name: str) -> None:
    pids = processes(lab, name)
    signal_all(pids, signal.SIGSTOP)
    time.sleep(HANG)
    signal_all([*pids, lab.pod.daemons[name].process.pid], signal.SIGCONT)  # nsenter stops with its child


@pytest.mark.parametrize("fault", [kill_main, kill_children, hang], ids=lambda fault: fault.__name__)
def test_a_daemon_that_dies_or_hangs_loses_no_accepted_message(lab: Lab, traffic: Traffic, fault: Callable[[Lab, str], None]) -> None:
    with supervisor(lab):
        for name in DAEMONS:
            fault(lab, name)
            traffic.wait_until_accepted()


def test_a_node_that_dies_loses_no_accepted_message(lab: Lab, traffic: Traffic) -> None:
    name = lab.nodes.names[1]
    lab.nodes.black_hole(name)
    try:
        wait_for("HAProxy to see it", lambda: "DOWN" in {state[:4] for state in lab.haproxy.states().values()})
        traffic.wait_until_accepted()
    finally:
        lab.nodes.heal()
    lab.wait_until_served()
    traffic.wait_until_accepted()


@pytest.mark.parametrize("end", [MailServer.stop, MailServer.kill], ids=lambda end: end.__name__)
def test_a_pod_that_is_replaced_loses_no_accepted_message(lab: Lab, traffic: Traffic, end: Callable[[MailServer], None]) -> None:
    end(lab.pod)
    lab.pod.restart()
    lab.wait_until_served()
    traffic.wait_until_accepted()
