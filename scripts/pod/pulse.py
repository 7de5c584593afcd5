"""Tells a Pushgateway every minute what only the mail server's own container sees: listeners, queue, free space, what
Rspamd counts.

It opens no connection to a mail service, so it leaves no line in the mail log, and it runs as an unprivileged user.
"""

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from common import Metrics, push, terminate_cleanly

LISTEN = "0A"  # TCP_LISTEN, as /proc/net/tcp spells it
# What is passed on of the page in Prometheus' format that Rspamd's controller shows inside the container.
COUNTED = {
    "rspamd_actions_total": "Messages since Rspamd started, by what it told Postfix to do with them",
    "rspamd_learned_total": "Messages that Rspamd has learned from",
}
SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? ([0-9.e+]+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")


def listening(tables: list[Path]) -> set[int]:
    """Ports in the kernel's tables on which something listens."""
    ports = set()
    for table in tables:
        for line in table.read_text("ascii").splitlines()[1:] if table.exists() else ():
            local, state = line.split()[1], line.split()[3]
            if state == LISTEN:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


def arrivals(postqueue: str) -> dict[str, list[float]] | None:
    """When each message arrived, by queue; None while Postfix does not say. The files' own times move with every try."""
    try:
        answer = subprocess.run([postqueue, "-j"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        return None
    found: dict[str, list[float]] = {queue: [] for queue in QUEUES}
    for line in answer.stdout.splitlines():
        message = json.loads(line)
        found.setdefault(message["queue_name"], []).append(message["arrival_time"])
    return found


def page(port: int) -> list[str]:
    """The lines of `/metrics` at a port of this container; none while it is not there, of which `mail_listener_up` tells."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return answer.read().decode().splitlines() if answer.status == http.client.OK else []
    except (OSError, http.client.HTTPException, UnicodeError):
        return []
    finally:
        connection.close()


def gather(options: argparse.Namespace) -> Metrics:
    metrics, now = Metrics(), time.time()
    open_ports = listening([options.proc / "net/tcp", options.proc / "net/tcp6"])
    for name, port in (entry.rsplit(":", 1) for entry in options.listener):
        metrics.set("mail_listener_up", int(port) in open_ports, "Whether something listens on the port", listener=name)
    for queue, times in (arrivals(options.postqueue) or {}).items():
        metrics.set("mail_queue_messages", len(times), "Messages in each of Postfix' queues", queue=queue)
        age = now - min(times) if times else 0
        metrics.set("mail_queue_oldest_seconds", max(age, 0), "Since when the oldest message of a queue has waited", queue=queue)
    samples = [found.groups() for line in page(options.controller) if (found := SAMPLE.match(line))]
    for name, meaning in COUNTED.items():
        for _, labels, value in (sample for sample in samples if sample[0] == name):
            metrics.set(name, float(value), meaning, **dict(LABEL.findall(labels or "")))
    volume = os.statvfs(options.volume)
    metrics.set("mail_volume_free_bytes", volume.f_bavail * volume.f_frsize, "Free space of the mail volume")
    metrics.set("mail_volume_size_bytes", volume.f_blocks * volume.f_frsize, "Size of the mail volume")
    outdated = options.said.exists() and "LAST GOOD SET IN USE" in options.said.read_text("utf-8")
    metrics.set("mail_last_good_set_in_use", outdated, "Whether a Secret was unusable at the start, so that an earlier set is in use")
    return metrics


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, fromfile_prefix_chars="@", formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="group in the Pushgateway")
    parser.add_argument("--listener", action="append", required=True, metavar="NAME:PORT")
    parser.add_argument("--controller", type=int, required=True, help="port of Rspamd's controller")
    parser.add_argument("--postqueue", default="postqueue")
    parser.add_argument("--volume", type=Path, default=Path("/var/mail"), help="a folder of the mail volume")
    parser.add_argument("--said", type=Path, default=Path("/tmp/docker-mailserver/assemble.txt"), help="what assemble.py had to say")  # noqa: S108 - the image's
    parser.add_argument("--proc", type=Path, default=Path("/proc"))
    parser.add_argument("--interval", type=float, default=60, help="seconds between two reports; 0: report once")
    parser.add_argument("--pushgateway", required=True)
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, terminate_cleanly)
    while True:
        pushed = push(options.pushgateway, options.job, gather(options), replace=True)
        if not options.interval:
            return 0 if pushed else 1
        time.sleep(options.interval)


if __name__ == "__main__":
    sys.exit(main())
