"""Benchmarks of the jobs: an unchanged backup against the first one, retention against its search alone, an unchanged pod start.

They need root, Dovecot and restic, and take some minutes.
"""

import contextlib
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from components.mail.image import VMAIL
from tools.bench import job_memory
from tools.lab.certificates import Authority
from tools.lab.servers import NAME, PASSWORD, dovecot
from tools.pod import SCRIPTS

MESSAGES = 20_000
MESSAGE_BYTES = 80_000  # as in the owner's spam mailbox: 43 MiB in 519 messages
ROUNDS = 5
ACCOUNTS = 200
DUE = 20  # messages that a run finds: it comes every four hours
BOX = "spam@example.org"
DAY = 86400


# Notes the seconds of each `restic backup`; bash has the clock built in.
_CLOCK = """\
#!/bin/bash
began=$EPOCHREALTIME
{restic} "$@"
code=$?
case " $* " in *" backup "*) awk "BEGIN {{ print $EPOCHREALTIME - $began }}" >> {times} ;; esac
exit $code
"""


def missing() -> str | None:
    """Why nothing can be measured here, or None."""
    programs = [program for program in ("dovecot", "restic") if shutil.which(program) is None]
    return "needs root" if os.getuid() else f"needs {', '.join(programs)}" if programs else None


def backup_ratios() -> tuple[float, float]:
    """Time of a second backup of unchanged mail over the first: its `restic backup`, and the whole job with its proofs.

    Of the former, the opening of the repository is taken off: restic makes it slow on purpose, the same for any size (scrypt).
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        box = folder / "source" / "mail" / "example.org" / "spam"
        for path in (box / "cur", box / "new", folder / "source" / "state", folder / "source" / "manifest", folder / "backup"):
            path.mkdir(parents=True)
        for number in range(MESSAGES):
            text = f"Message-ID: <{number}@bench>\n\n".encode() + os.urandom(MESSAGE_BYTES)
            (box / "cur" / f"1700000000.M{number}P1.host,S={len(text)}:2,S").write_bytes(text)
        (folder / "key").write_text("bench", encoding="utf-8")
        times = folder / "times"
        restic = folder / "restic"
        restic.write_text(_CLOCK.format(restic=shutil.which("restic"), times=times), encoding="utf-8")
        restic.chmod(0o755)
        jobs, saves = [], []
        for turn in ("first", "second"):
            (folder / turn).mkdir()  # a pod begins without restic's cache
            times.write_text("", encoding="utf-8")
            command = [
                *(sys.executable, "-B", str(SCRIPTS / "backup.py"), "--job", "bench", "--root", str(folder / "source")),
                *("--source", "mail", "--source", "state", "--maildirs", "mail", "--repository", str(folder / "backup" / "restic")),
                *("--key-file", str(folder / "key"), "--restic", str(restic), "--scratch", str(folder / turn), "--max-fall", "50"),
                *("--keep-daily", "7", "--keep-weekly", "8", "--verify-parts", "7"),
                *(("--new-repository",) if turn == "first" else ()),
            ]
            jobs.append(_seconds(command))
            saves.append(sum(float(line) for line in times.read_text("utf-8").split()))
        look = ["restic", "--repo", f"{folder}/backup/restic", "--password-file", f"{folder}/key", "--no-cache", "cat", "config"]
        opening = statistics.median(_seconds(look) for _ in range(ROUNDS))
        return (saves[1] - opening) / (saves[0] - opening), jobs[1] / jobs[0]


def retention_ratio() -> float:
    """Time of a retention run that deletes a night's mail of a large mailbox over the same searches alone, cold each."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        authority, trusted = Authority(), folder / "ca.pem"
        trusted.write_text(authority.certificate, encoding="utf-8")
        (folder / "passwords").mkdir()
        (folder / "passwords" / BOX.replace("@", "_at_")).write_text(PASSWORD, encoding="utf-8")
        server = stack.enter_context(dovecot(folder / "dovecot", authority.issue(NAME), [BOX]))
        place = server.maildir(BOX) / "cur"
        now = time.time()
        for number in range(MESSAGES):
            age = (number % 200 + 1) * DAY
            automated = number % 3 and age < 13 * DAY
            path = place / f"{int(now - age)}.M{number}P1.bench:2,S"
            header = "List-Unsubscribe: <https://x>" if automated else "X-Human: yes"
            path.write_text(f"Subject: {number}\n{header}\n\n{'x' * 2000}\n", encoding="utf-8")
            os.utime(path, (now - min(age, 89 * DAY), now - min(age, 89 * DAY)))
        subprocess.run(["chown", "-R", f"{VMAIL}:{VMAIL}", str(server.mail)], check=True)
        sys.path.insert(0, str(SCRIPTS))
        query = importlib.import_module("retention").query  # a pod's program: its folder is not a package
        environment = {**os.environ, "SSL_CERT_FILE": str(trusted)}
        command = [
            *(sys.executable, "-B", str(SCRIPTS / "retention.py"), "--job", "bench", "--name", NAME, "--address", "127.0.0.1"),
            *("--port", str(server.port), "--passwords", str(folder / "passwords"), "--max-messages", "500", "--max-share", "50"),
            *("--rule", f"{BOX}|INBOX|automated|14", "--rule", f"{BOX}|INBOX|human|90"),
        ]
        searches = [query("automated", 14), query("human", 90)]
        _search(server.port, trusted, searches)  # the first look makes Dovecot read every header
        runs, alone = [], []
        for turn in range(ROUNDS):
            for number in range(DUE):
                server.deliver(BOX, f"Subject: {turn}.{number}\nPrecedence: bulk\n\nx\n".encode(), age=20 * DAY)
            _search(server.port, trusted, ["ALL"])
            alone.append(_search(server.port, trusted, searches))
            runs.append(_seconds(command, environment))
        return statistics.median(runs) / statistics.median(alone)


def pod_start_seconds() -> float:
    """The init container's program at a pod start with accounts that have not changed since the last one."""
    with tempfile.TemporaryDirectory() as scratch:
        config, secrets, target, state = (Path(scratch) / name for name in ("config", "secrets", "target", "state"))
        for folder in (config, secrets / "accounts", target, state):
            folder.mkdir(parents=True)
        addresses = [f"user{number}@example.org" for number in range(ACCOUNTS)]
        for name, lines in (("domains", ["example.org"]), ("dkim-keys", []), ("mailboxes", addresses)):
            (config / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        (config / "postfix-virtual.cf").write_text("", encoding="utf-8")
        passwords = {address: f"password of {address}" for address in addresses}
        (secrets / "accounts" / "accounts").write_text(json.dumps(passwords), encoding="utf-8")
        places = ("--config", str(config), "--secrets", str(secrets), "--target", str(target), "--state", str(state))
        command = [sys.executable, "-B", str(SCRIPTS / "assemble.py"), *places]
        _seconds(command)  # hashes them
        return statistics.median(_seconds(command) for _ in range(ROUNDS))


def _search(port: int, trusted: Path, criteria: list[str]) -> float:
    """Seconds of a program of its own that logs in and searches, as the job is one."""
    code = f"""\
import imaplib, ssl, sys
context = ssl.create_default_context(cafile={str(trusted)!r})
context.check_hostname = False
with imaplib.IMAP4_SSL("127.0.0.1", {port}, ssl_context=context) as session:
    session.login({BOX!r}, {PASSWORD!r})
    session.select("INBOX")
    for criteria in {criteria!r}:
        assert session.uid("SEARCH", criteria)[0] == "OK"
"""
    return _seconds([sys.executable, "-B", "-c", code])


def _seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[2]}: {done.stdout}{done.stderr}")
    return time.perf_counter() - started


def measurements() -> Iterator[tuple[str, float, float, str]]:
    """What was measured, the value, the bound it should keep, and the unit of both."""
    save, job = backup_ratios()
    yield f"second backup of {MESSAGES} unchanged messages over the first, less the opening of the repository", save, 0.1, "x"
    yield "the whole job of that night, with proofs and a seventh read back, over the first", job, 0.42, "x"
    yield f"retention over its searches alone ({MESSAGES} messages)", retention_ratio(), 1.5, "x"
    yield f"pod start: the init container's work with {ACCOUNTS} unchanged accounts", pod_start_seconds(), 2, " s"
    yield from job_memory.measurements()


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    for what, value, bound, unit in measurements():
        print(f"{what}: {value:.2f}{unit} (bound {bound}{unit})")
