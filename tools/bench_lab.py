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


def rows(lab: Lab) -> Iterator[tuple[str, str, str]]:
    """Name, figure and goal of each measurement."""
    direct, edge = proxy_latency(lab)
    yield "587, PROXY v2 against direct, median added", f"{edge - direct:.2f} ms ({direct:.2f} -> {edge:.2f})", "<= 0.5 ms"
    for fault, goal in (("refuse", "0 failed"), ("black_hole", "0 failed, slow <= 1 s")):
        seen = during(lab, lambda fault=fault: getattr(lab.nodes, fault)(lab.nodes.names[1]), seconds=12)
        lab.nodes.heal()
        lab.wait_until_served()
        figure = f"{seen.failed} failed, {seen.slow} slow of {len(seen.times)}, slowest {seen.slowest:.2f} s"
        yield f"a node dies ({fault.replace('_', ' ')})", figure, goal
