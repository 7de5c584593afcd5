"""The mail volume is full while mail comes in, and then is not."""

import contextlib
import re
from collections.abc import Iterator

import pytest

from components.settings.quantity import in_bytes
from tests.load.test_faults import assert_kept
from tools.lab.edge import Lab
from tools.lab.hosts import wait_for
from tools.lab.traffic import Traffic

FOLDERS = ("/var/mail", "/var/log/mail", "/var/spool/postfix", "/var/lib/postfix", "/var/lib/dovecot", "/var/lib/rspamd", "/var/lib/redis")
FREE = 100  # MiB, beyond what the volume holds already
FILLER = "/volume/filler"


@pytest.fixture
def small_volume(lab: Lab) -> Iterator[None]:
    """What the image keeps on the mail volume, on a file system of a few megabytes."""
    host = lab.pod.host
    lab.pod.stop()
    used = sum(int(line.split()[0]) for line in host.run("du", "-sm", *FOLDERS).stdout.splitlines())
    with contextlib.ExitStack() as stack:
        stack.callback(lab.wait_until_served)
        stack.callback(lab.pod.start)
        host.run("mkdir", "-p", "/volume")
        host.run("mount", "-t", "tmpfs", "-o", f"size={used + FREE}m,mode=755", "tmpfs", "/volume")
        stack.callback(host.run, "umount", "-l", "/volume")
        for folder in FOLDERS:
            host.run("mkdir", "-p", f"/volume{folder}")
            host.run("cp", "-a", f"{folder}/.", f"/volume{folder}")
            host.run("chown", "--reference", folder, f"/volume{folder}")
            host.run("chmod", "--reference", folder, f"/volume{folder}")
            host.run("mount", "--bind", f"/volume{folder}", folder)
            stack.callback(_back, lab, folder)
        stack.callback(lab.pod.stop)
        lab.pod.start()
        lab.wait_until_served()
        yield


def _back(lab: Lab, folder: str) -> None:
    lab.pod.host.run("umount", "-l", folder)
    lab.pod.host.run("find", folder, "-mindepth", "1", "-delete")
    lab.pod.host.run("cp", "-a", f"/volume{folder}/.", folder)


def fill(lab: Lab, *, leave: int) -> None:
    """Another program of the volume fills it, but for `leave` KiB."""
    free = int(lab.pod.host.run("df", "--output=avail", "-k", "/volume").stdout.split()[-1])
    # Mail takes some of it meanwhile: the last write may find none left.
    dd = ("dd", "if=/dev/zero", f"of={FILLER}", "bs=1k", f"count={max(0, free - leave)}", "oflag=append", "conv=notrunc")
    lab.pod.host.run(*dd, check=False)


def refusals(traffic: Traffic) -> int:
    return sum(len(letter.deferred) for letter in traffic.letters)


def test_a_full_disk_defers_mail_and_a_freed_one_takes_it_again(lab: Lab, small_volume: None) -> None:
    """First below Postfix's reserve, where senders are told to come again; then to the last byte, with mail in the queue."""
    with Traffic(lab, 8) as traffic:
        traffic.wait_until_accepted()
        fill(lab, leave=in_bytes(lab.site.mail.message_size_limit) >> 10)  # Postfix's reserve is 1.5 times that
        wait_for("452", lambda: any(re.match("452", said) for letter in traffic.letters for said in letter.deferred), 60)
        fill(lab, leave=0)
        before = refusals(traffic)
        wait_for("another refusal", lambda: refusals(traffic) > before, 60)
        lab.pod.host.run("rm", FILLER)
        traffic.wait_until_accepted()
    assert_kept(traffic)
    assert traffic.unexplained() == []
