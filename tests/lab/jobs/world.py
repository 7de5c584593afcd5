"""Mail to be saved, a repository to save it to, and the jobs on both as their pods call them."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from tools.lab.servers import VMAIL
from tools.pod import SCRIPTS

JOB, DRILL = "mailserver-backup", "mail-restore-drill"
KEY = "a key that no log may show"
ALICE, SPAM = "alice@example.org", "spam@example.org"


class World:
    """Sources below a root, a repository, a Pushgateway; and the jobs on them as their pods call them."""

    def __init__(self, folder: Path, gateway, job):
        self.root, self.repository = folder / "source", folder / "backup" / "restic"
        self.scratch = Path(tempfile.mkdtemp(prefix="scratch-"))  # where the mail's own user may go, unlike pytest's folders
        self.scratch.chmod(0o755)
        self.key = folder / "key"
        self.programs = SCRIPTS
        self.within: tuple[str, ...] = ()  # a command that runs the job under a limit
        self.gateway, self._job = gateway, job
        for path in (self.root / "mail", self.root / "state", self.root / "manifest", self.repository.parent, self.scratch):
            path.mkdir(parents=True, exist_ok=True)
        self.key.write_text(KEY, encoding="utf-8")
        (self.root / "state" / "lib-rspamd").mkdir()
        (self.root / "state" / "lib-rspamd" / "rspamd.rrd").write_text("statistics", encoding="utf-8")

    def arguments(self, *more: object) -> list[object]:
        place = ["--job", JOB, "--root", self.root, "--source", "mail", "--source", "state", "--maildirs", "mail"]
        limits = ["--max-fall", 50, "--keep-daily", 7, "--keep-weekly", 8, "--verify-parts", 1]
        return [*place, *self.where(), *limits, "--pushgateway", self.gateway.url, *more]

    def where(self) -> list[object]:
        return ["--repository", self.repository, "--key-file", self.key, "--scratch", self.scratch]

    def run(self, script: str, *arguments: object):
        done = self._job(script, *arguments, programs=self.programs, within=self.within)
        assert KEY not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def backup(self, *more: object):
        """The nightly job; on a repository that is not there yet, the first run that a person starts."""
        first = () if self.repository.exists() else ("--new-repository",)
        return self.run("backup.py", *self.arguments(*first, *more))

    def start(self, *more: object) -> subprocess.Popen:
        """The nightly job, under way."""
        command = [sys.executable, "-B", str(SCRIPTS / "backup.py"), *map(str, self.arguments(*more))]
        return subprocess.Popen(
            command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    @staticmethod
    def wait_for(happened: Callable[[], object], process: subprocess.Popen) -> None:
        """Until it happens, or the process ends."""
        while not happened():
            assert process.poll() is None, "it ended before that"
            time.sleep(0.01)

    def slow_restic(self, command: str) -> tuple[Path, Path]:
        """A restic that stops before `command` until a file is there; it, and that file. It makes `waiting` in scratch."""
        wrapper, go = self.key.with_name("slow-restic"), self.scratch / "go"
        wrapper.write_text(
            f'#!/bin/bash\ncase " $* " in *" {command} "*) touch {self.scratch}/waiting\n'
            f'  while [[ ! -e {go} && -d {self.scratch} ]]; do sleep 0.02; done;; esac\nexec restic "$@"\n',
            encoding="utf-8",
        )
        wrapper.chmod(0o755)
        return wrapper, go

    def drill(self, *more: object):
        place = ("--job", DRILL, "--host", JOB, "--root", self.root, "--maildirs", "mail", "--uid", VMAIL)
        return self.run("drill.py", *place, *self.where(), "--pushgateway", self.gateway.url, *more)

    def restore(self, *more: object, running: str = "127.0.0.1:9"):
        place = ("--host", JOB, "--root", self.root, "--source", "mail", "--source", "state", "--maildirs", "mail", "--running", running)
        return self.run("restore.py", *place, *self.where(), *more)

    def fingerprint(self) -> str:
        return sha256((self.repository / "config").read_bytes()).hexdigest()[:16]

    def value(self, metric: str, **labels: str) -> float:
        return self.gateway.value(JOB, metric, **labels)

    def restic(self, *arguments: str) -> str:
        command = ["restic", "--repo", str(self.repository), "--password-file", str(self.key), "--no-cache", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=120).stdout

    def earlier(self, days: int) -> None:
        """What is there now, as a good snapshot of an earlier day."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - days * 86400))
        paths = [str(self.root / name) for name in ("mail", "state", "manifest")]
        self.restic("backup", "--host", JOB, "--tag", "good", "--time", stamp, *paths)

    def snapshots(self) -> list[dict]:
        return json.loads(self.restic("snapshots", "--json"))


def fill(mail: Path, address: str, count: int, folder: str = "", flags: str = "S", size: int = 400) -> list[Path]:
    """Messages as Dovecot stores them, some of them new, each with a date of arrival of its own."""
    user, _, domain = address.rpartition("@")
    box = mail / domain / user
    place = box / folder if folder else box
    for part in ("cur", "new", "tmp"):
        (place / part).mkdir(parents=True, exist_ok=True)
    made, label = [], re.sub("[^a-zA-Z0-9]", "_", folder.strip("."))
    for number in range(count):
        identity = f"{folder}{number}.{user}@{domain}"
        text = f"Message-ID: <{identity}>\nSubject: {number}\n\n{identity}\n" + os.urandom(size // 2).hex()
        name = f"17000{number:05}.M{number}P1{label}.host,S={len(text)}"  # Dovecot believes the size
        path = place / ("new" if number % 5 == 0 else "cur") / (name if number % 5 == 0 else f"{name}:2,{flags}")
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
        made.append(path)
    subprocess.run(["chown", "-R", f"{VMAIL}:{VMAIL}", str(mail)], check=True)
    return made


def state_of(folder: Path) -> dict[str, tuple]:
    """Content, owner, mode and time of every file."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and ".before-restore-" not in str(path)):
        status = path.stat()
        found[str(path.relative_to(folder))] = (path.read_bytes(), status.st_uid, status.st_mode, int(status.st_mtime))
    return found
