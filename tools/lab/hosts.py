"""Machines of the lab: each has network, processes, host name and files of its own, and is gone when the lab ends."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from components.errors import UserError

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as in the image; the order is what the postsrsd wrapper needs

PROGRAMS = (
    "postfix",
    "dovecot",
    "haproxy",
    "rspamd",
    "redis-server",
    "postsrsd",
    "rsyslogd",
    "nft",
    "ip",
    "openssl",
    "unshare",
    "setpriv",
    "php",
    "nginx",
)

# Debian's files below, a layer in memory above: daemons see their usual paths, and nothing is written to the machine. Mounted as
# the new root, so that folders like /secrets can exist. PID 1 collects orphans.
_INIT = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$3,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
cd "$1/root"
mkdir -p proc sys dev run tmp old
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do : > "dev/$node"; mount --bind "/dev/$node" "dev/$node"; done
ln -s /proc/self/fd dev/fd
mkdir -m 1777 dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
pivot_root . old
umount -l /old
rmdir /old
hostname "$2"
ip link set lo up
echo ready
while :; do sleep 3600 & wait $! || :; done
"""


def missing() -> str | None:
    """Why the lab cannot run here; None when it can."""
    if os.geteuid() != 0:
        return "the lab needs root, for namespaces and Postfix"
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PATH}") is None]
    return f"the lab needs Debian's packages (tools/packages.sh); not found: {', '.join(absent)}" if absent else None


def _processor() -> tuple[int, int]:
    """Ticks since the machine began: of work, and of work that waited because other machines had the processor (proc_stat(5))."""
    user, nice, system, _, _, irq, softirq, stolen = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return user + nice + system + irq + softirq, stolen


_BEGAN = _processor()


def slowness() -> float:
    """How much longer things take than on an idle machine: the tasks of the last minute that wanted a core, over the cores; times
    what other machines on the same processor have cost this process so far."""
    worked, stolen = (now - began for now, began in zip(_processor(), _BEGAN, strict=True))
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) * min(4.0, 1 + stolen / max(worked, 1))


def wait_for(what: str, check: Callable[[], Any], seconds: float = 15) -> Any:
    """The first true result of `check`, asked 50 times a second for as long as an idle machine's `seconds` are."""
    left, before = seconds, time.monotonic()
    while not (result := check()):
        now = time.monotonic()
        left, before = left - (now - before) / slowness(), now
        if left < 0:
            raise UserError(f"{what}: not within {seconds:g} s of an idle machine")
        time.sleep(0.02)
    return result


def set_back(path: Path, seconds: float) -> None:
    """Make a file look older than it is."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(below for child in children for below in family(int(child)))]


def signal_all(pids: Iterable[int], number: int) -> None:
    """A signal to each that still runs."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class Daemon:
    """A process in the foreground on a host; its output is in a file outside of the host."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process, self.output = process, output
        # nsenter forks into the host's processes and waits; the one that matters is its child.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_for(f"{output.stem}", lambda: process.poll() is not None or children.read_text())
        self.pid = int(children.read_text()) if self.running() else 0

    def running(self) -> bool:
        return self.process.poll() is None

    def send(self, number: int) -> None:
        # It may have ended a moment ago, and nsenter not yet.
        if self.running():
            signal_all([self.pid], number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15) -> None:
        self.process.send_signal(signal.SIGCONT)  # nsenter stops with its child, and does not go on with it
        self.send(number)
        try:
            self.process.wait(seconds * slowness())
        except subprocess.TimeoutExpired:
            signal_all(family(self.pid), signal.SIGKILL)  # workers that outlive their main process keep its ports
            self.process.wait()


class Host:
    """One machine. `run` and `spawn` start programs on it; `path` is a file of it, seen from outside.

    Its files are those of `below`, with a layer in memory above.
    """

    def __init__(self, name: str, folder: Path, below: Path = Path("/")) -> None:
        self.name, self.folder = name, folder
        folder.mkdir(parents=True)
        root = folder / "root"
        root.mkdir()
        unshare = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL", "--propagation", "private"]
        # The kernel ends the host with this process, however that ends.
        self._init = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *unshare, "bash", "-c", _INIT, "init", str(root), name, str(below)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(folder / "init.log").open("wb"),
        )
        assert self._init.stdout is not None  # noqa: S101 - a pipe was asked for
        if self._init.stdout.readline() != b"ready\n":
            raise UserError(f"{name}: {(folder / 'init.log').read_text().strip()}")
        self.pid = int(Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()[0])
        self._enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--uts", "--ipc", "--"]

    def path(self, inside: str) -> Path:
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def run(
        self, *command: str, check: bool = True, env: Mapping[str, str] | None = None, stdin: str = "", seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end; its texts are returned, and a failure is an error unless `check` is off."""
        result = subprocess.run(
            [*self._enter, *command],
            input=stdin,
            capture_output=True,
            text=True,
            env={"PATH": PATH, **(env or {})},
            timeout=seconds * slowness(),
            check=False,
        )
        if check and result.returncode != 0:
            raise UserError(f"{self.name}: {' '.join(command)} ended with {result.returncode}: {result.stdout}{result.stderr}".strip())
        return result

    def settle_postfix(self) -> None:
        """Postfix's programs wait until main.cf is two seconds old, in case it is still being written; the image backdates it."""
        set_back(self.path("/etc/postfix/main.cf"), 10)

    def spawn(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> Daemon:
        output = self.folder / f"{name}.log"
        with output.open("ab") as file:
            process = subprocess.Popen(
                [*self._enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={"PATH": PATH, **(env or {})},
            )
        return Daemon(process, output)

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """The calling thread's new sockets (and its new threads') belong to this host."""
        with Path("/proc/thread-self/ns/net").open("rb") as before, Path(f"/proc/{self.pid}/ns/net").open("rb") as inside:
            _setns(inside.fileno())
            try:
                yield
            finally:
                _setns(before.fileno())

    def link(self, router: "Host", device: str, *addresses: str) -> None:
        """A cable to `router`, which forwards for this host. Addresses are single ones, of either family."""
        subprocess.run(
            ["ip", "link", "add", device, "netns", str(router.pid), "type", "veth", "peer", "name", "eth0", "netns", str(self.pid)],
            check=True,
        )
        router.run("ip", "link", "set", device, "up")
        self.run("ip", "link", "set", "eth0", "up")
        # The gateway has the same address on every cable, as Calico does it.
        for gateway in ("169.254.1.1/32", "fe80::1/64"):
            router.run("ip", "address", "add", gateway, "dev", device, *_no_delay(gateway))
        self.run("ip", "route", "add", "169.254.1.1", "dev", "eth0")
        self.run("ip", "route", "add", "default", "via", "169.254.1.1")
        self.run("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0")
        for address in addresses:
            self.run("ip", "address", "add", address, "dev", "eth0", *_no_delay(address))
            router.run("ip", "-6" if ":" in address else "-4", "route", "add", address, "dev", device)

    def close(self) -> None:
        self._init.kill()
        self._init.wait()


def _no_delay(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []


def _setns(descriptor: int) -> None:
    if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
        raise UserError(f"setns: {os.strerror(ctypes.get_errno())}")
