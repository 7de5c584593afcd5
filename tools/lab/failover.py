"""What clients feel while something happens to the edge: connections at a steady pace, each timed to its greeting."""

import itertools
import math
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from components.listeners import SUBMISSION
from tools.lab.edge import Lab
from tools.lab.hosts import slowness
from tools.lab.paths import CLIENTS

PACE = 0.2  # seconds from one connection to the next, as in the measured table
PATIENCE = 6.0  # seconds of an idle machine after which a client has failed
SLOW = 0.5  # seconds; a healthy greeting takes milliseconds
_SOURCES = itertools.cycle([str(CLIENTS[number]) for number in range(60_000, 60_100)])  # so that no client meets its rate limit


@dataclass
class Outcome:
    """Connections that were tried, and how each ended: seconds to the greeting, or infinity."""

    times: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(map(math.isinf, self.times))

    @property
    def slow(self) -> int:
        return sum(SLOW < taken < math.inf for taken in self.times)

    @property
    def slowest(self) -> float:
        return max(filter(math.isfinite, self.times), default=0.0)


def greeting(lab: Lab, port: int = SUBMISSION.port) -> float:
    """Seconds from connecting to the first byte of the greeting; infinity without one."""
    begun = time.monotonic()
    try:
        with lab.outside():
            connection = socket.create_connection((str(lab.site.edge.address), port), PATIENCE * slowness(), (next(_SOURCES), 0))
        with connection:
            if connection.recv(3) != b"220":
                return math.inf
            connection.sendall(b"QUIT\r\n")
            connection.recv(100)
    except OSError:
        return math.inf
    return time.monotonic() - begun


def during(lab: Lab, event: Callable[[], None], seconds: float) -> Outcome:
    """Connect at a steady pace for so long while `event` happens, and wait for the last to end."""
    outcome = Outcome()
    clients: list[threading.Thread] = []

    def connect() -> None:
        outcome.times.append(greeting(lab))

    trouble = threading.Timer(PACE * 3, event)
    trouble.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        clients.append(threading.Thread(target=connect))
        clients[-1].start()
        time.sleep(PACE)
    for thread in [trouble, *clients]:
        thread.join()
    return outcome
