"""What a backup and a drill of a million messages take: memory, in tmpfs so that it is a matter of minutes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.mail.image import VMAIL
from tools.pod import SCRIPTS

MESSAGES = 1_000_000
FOLDERS = 100
SPACE = 6 << 30  # a page and an inode for each message

# Runs a program, and notes the peak of its own memory and that of the largest process that it started; KiB each. Its own is
# not taken from rusage, where a process begins with the peak of the one that started it.
_PEAKS = """\
import pathlib, resource, runpy, sys
peaks, script, *_ = sys.argv[1:]
sys.argv[:] = sys.argv[2:]
sys.path.insert(0, str(pathlib.Path(script).parent))
try:
    runpy.run_path(script, run_name="__main__")
finally:
    own = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    pathlib.Path(peaks).write_text(f"{own} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
"""


@contextmanager
def _in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SPACE},mode=755", "tmpfs", place], check=True)
        try:
            yield Path(place)
        finally:
            subprocess.run(["umount", place], check=True)


def _available() -> int:
    rows = Path("/proc/meminfo").read_text("utf-8").splitlines()
    return next(int(row.split()[1]) << 10 for row in rows if row.startswith("MemAvailable"))


def _fill(mail: Path) -> None:
    for folder in range(FOLDERS):
        place = mail / "example.org" / f"user{folder % 4}" / f".Folder{folder}" / "cur"
        place.mkdir(parents=True)
        (place.parent / "new").mkdir()
        for number in range(MESSAGES // FOLDERS):
            file = os.open(place / f"1700000000.M{number}P{folder}.bench,S=27:2,S", os.O_CREAT | os.O_WRONLY, 0o600)
            os.write(file, b"Subject: %04d.%09d\n\nx\n" % (folder, number))
            os.close(file)
    subprocess.run(["chown", "-R", f"{VMAIL}:{VMAIL}", str(mail)], check=True)


def measurements() -> Iterator[tuple[str, float, float, str]]:
    """What was measured, MiB, the memory of the job's container, and the unit; nothing where there is not enough memory to do it."""
    if _available() < 2 * SPACE:
        return
    with _in_memory() as place:
        for folder in ("source/mail", "source/state", "source/manifest", "backup", "scratch"):
            (place / folder).mkdir(parents=True)
        (place / "source" / "state" / "file").write_text("x", encoding="utf-8")
        (place / "key").write_text("bench", encoding="utf-8")
        _fill(place / "source" / "mail")
        where = ("--root", f"{place}/source", "--maildirs", "mail", "--repository", f"{place}/backup/restic", "--key-file", f"{place}/key")
        limits = ("--max-fall", "50", "--keep-daily", "7", "--keep-weekly", "8", "--verify-parts", "7", "--new-repository")
        jobs = {
            "backup": ("--job", "bench", "--source", "mail", "--source", "state", *limits),
            "drill": ("--job", "drill", "--host", "bench", "--uid", str(VMAIL)),
        }
        for name, arguments in jobs.items():
            command = [
                sys.executable,
                "-B",
                "-c",
                _PEAKS,
                f"{place}/peaks",
                f"{SCRIPTS}/{name}.py",
                *where,
                "--scratch",
                f"{place}/scratch",
            ]
            done = subprocess.run([*command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{name}: {done.stdout}{done.stderr}")
            own, child = (int(text) / 1024 for text in (place / "peaks").read_text("utf-8").split())
            yield (
                f"{name} of {MESSAGES:,} messages: memory of the program, and of restic or Dovecot below it ({child:.0f})",
                own + child,
                512,
                " MiB",
            )
            subprocess.run(["rm", "-rf", f"{place}/source/mail"], check=True)  # the drill brings it back, and memory is for one of the two


if __name__ == "__main__":
    for what, value, bound, unit in measurements():
        print(f"{what}: {value:.0f}{unit} (bound {bound:.0f}{unit})")
