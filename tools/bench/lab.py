"""Measurements of the lab's edge: what the PROXY path costs, and what a dying node costs."""

import statistics
import time
from collections.abc import Iterator

from components.listeners import SUBMISSION
from tools.lab.client import Client
from tools.lab.edge import Lab
from tools.lab.failover import during

ROUNDS = 150


def proxy_latency(lab: Lab, rounds: int = ROUNDS) -> tuple[float, float]:
    """Median milliseconds from connecting to the greeting of 587: straight to the pod, and through HAProxy with PROXY v2.

    Both in turns within one run, from the addresses of nodes and of many clients, so that no rate limit is met.
    """
    direct = Client(lab, lab.nodes.seen_as(lab.nodes.home), inside=True)
    times: dict[str, list[float]] = {"direct": [], "edge": []}
    edge = None
    for count in range(rounds):
        if count % 8 == 0:
            edge = Client(lab)
        for name, client in (("direct", direct), ("edge", edge)):
            assert client is not None  # noqa: S101
            begun = time.perf_counter()
            with client.raw(SUBMISSION.port) as connection:
                connection.recv(3)
                times[name].append((time.perf_counter() - begun) * 1000)
                connection.sendall(b"QUIT\r\n")
                connection.recv(100)
    return statistics.median(times["direct"]), statistics.median(times["edge"])


def measurements(lab: Lab) -> Iterator[tuple[str, float, float, str]]:
    """What was measured, its value, its bound, and the unit of both."""
    direct, edge = proxy_latency(lab)
    yield "587 through HAProxy with PROXY v2: median added to direct", edge - direct, 0.5, " ms"
    for name, fault in (("refuses", lab.nodes.refuse), ("is a black hole", lab.nodes.black_hole)):
        seen = during(lab, lambda fault=fault: fault(lab.nodes.names[1]), seconds=12)
        lab.nodes.heal()
        lab.wait_until_served()
        yield f"a node {name}: failed of {len(seen.times)} connections", seen.failed, 0, ""
        # HAProxy gives a node one second (timeout connect); the rest is the machine's.
        yield f"a node {name}: slowest connection", seen.slowest, 1.1, " s"
