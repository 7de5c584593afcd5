"""Measurements of the lab's edge: what the PROXY path costs, and what a dying node costs."""

import contextlib
import statistics
import time
from collections.abc import Iterator

from components.edge.desired import CONNECT_TIMEOUT
from components.errors import UserError
from components.listeners import SUBMISSION
from components.settings.quantity import in_bytes
from tools.lab.client import Client
from tools.lab.edge import Lab
from tools.lab.failover import during
from tools.lab.memory import peak_of_two, pod_memory
from tools.lab.traffic import Traffic

ROUNDS = 150
CLIENTS = 500
SECONDS = 60
KILLED_CLIENTS = 100


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
    yield "greeting of 587 through HAProxy with PROXY v2 / straight from the pod, median", edge / direct, 1.25, "x"
    timeout = CONNECT_TIMEOUT / 1000
    # At a refusal HAProxy takes another node at once, at silence after `timeout connect`.
    for name, fault, wait in (("refuses", lab.nodes.refuse, 0.5), ("is a black hole", lab.nodes.black_hole, 1.1)):
        seen = during(lab, lambda fault=fault: fault(lab.nodes.names[1]), seconds=12)
        lab.nodes.heal()
        lab.wait_until_served()
        yield f"a node {name}: failed of {len(seen.times)} connections", seen.failed, 0, ""
        yield f"a node {name}: slowest connection / HAProxy's timeout connect", seen.slowest / timeout, wait, "x"
    yield from load(lab)
    yield from killed_pod(lab)
    resources, largest = lab.site.mail.resources, lab.site.mail.message_size_limit
    idle, limit = pod_memory(lab) >> 20, in_bytes(resources.memory_limit) >> 20
    yield f"two messages of {largest} at once: memory of the pod ({idle} MiB before)", peak_of_two(lab) >> 20, limit, " MiB"


def load(lab: Lab) -> Iterator[tuple[str, float, float, str]]:
    """Half of the clients deliver on 25, a quarter submits on 465, a quarter logs in over IMAP, all through HAProxy."""
    with Traffic(lab, CLIENTS, pause=2) as traffic:
        time.sleep(SECONDS)
    yield from kept(f"{CLIENTS} clients for {SECONDS} s", traffic, 0)
    sessions = traffic.sessions
    yield f"{CLIENTS} clients for {SECONDS} s: failed of {len(sessions)} IMAP sessions", len(sessions) - sessions.count(""), 0, ""


def killed_pod(lab: Lab) -> Iterator[tuple[str, float, float, str]]:
    """Every process of the pod ends at the same moment, and a new pod takes over the volume."""
    with Traffic(lab, KILLED_CLIENTS) as traffic:
        traffic.wait_until_accepted()
        lab.pod.kill()
        lab.pod.restart()
        lab.wait_until_served()
        traffic.wait_until_accepted()
    # Postfix delivers again what it could not note as delivered.
    at_once = int(lab.pod.host.run("postconf", "-h", "default_destination_concurrency_limit").stdout)
    yield from kept(f"{KILLED_CLIENTS} clients, the pod killed and replaced", traffic, at_once)


def kept(what: str, traffic: Traffic, twice: int) -> Iterator[tuple[str, float, float, str]]:
    with contextlib.suppress(UserError):
        traffic.wait_until_kept(300)
    letters = traffic.letters
    accepted = [letter for letter in letters if letter.accepted]
    again = sum(bool(letter.deferred) for letter in accepted)
    yield f"{what}: lost of {len(accepted)} accepted messages ({again} of them at a later try)", len(traffic.lost()), 0, ""
    yield f"{what}: messages kept twice though no connection broke", len(traffic.unexplained()), twice, ""
    yield f"{what}: messages refused, or not accepted at all", len(letters) - len(accepted), 0, ""
