"""postsrsd is up in seconds, however many descriptors the runtime would allow."""

import resource
import signal
import time
from pathlib import Path

import pytest

from tests.lab.support import Log
from tools.lab.edge import Lab
from tools.lab.facts import COMMANDS
from tools.lab.hosts import wait_for

PORTS = (10001, 10002)
HUGE = 1 << 29  # containerd's LimitNOFILE=infinity comes to twice that where the kernel's own bound allows it


def _unbounded() -> str | None:
    """Why the fault cannot be shown here."""
    bound = int(Path("/proc/sys/fs/nr_open").read_text())
    if bound < HUGE:
        return f"the kernel allows {bound} descriptors (fs.nr_open), too few for the fault"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, HUGE)))
    except (ValueError, OSError):
        return "this process may not raise its descriptor limit (CAP_SYS_RESOURCE)"
    return None


def test_the_rendered_bound_holds_whatever_the_runtime_allows(lab: Lab, log: Log) -> None:
    log.expect(r"10001|10002|canonical|terminat")
    lab.pod.stop("postsrsd")
    wait_for("no postsrsd", lambda: not lab.pod.listening(10001))
    lab.pod.start("postsrsd")
    wait_for("postsrsd", lambda: lab.pod.listening(*PORTS), 10)
    children = lab.pod.host.run("pgrep", "-f", "/usr/sbin/postsrsd").stdout.split()
    assert children
    for pid in children:
        limits = lab.pod.host.run("cat", f"/proc/{pid}/limits").stdout
        assert limits.split("Max open files")[1].split()[:2] == ["1024", "1024"]


def test_without_the_bound_it_spins(lab: Lab) -> None:
    """A canary: the real program, with the limit that a container runtime may hand down."""
    if reason := _unbounded():
        pytest.skip(reason)
    host = lab.pod.host
    host.write("/etc/default/canary", host.path("/etc/default/postsrsd").read_text().replace("1000", "1100"))
    command = COMMANDS["postsrsd"][-1].replace("default/postsrsd", "default/canary").replace("run/postsrsd", "run/canary")
    daemon = host.spawn("canary", "prlimit", f"--nofile={HUGE}", "bash", "-c", command.replace(" postsrsd ", " /usr/sbin/postsrsd "))
    try:
        time.sleep(10)
        assert not lab.pod.listening(11001)
    finally:
        daemon.stop(signal.SIGKILL)
