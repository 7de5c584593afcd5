"""A restic repository, and what is to be saved in it: used by backup, drill and restore.

A repository holds one kind of source under fixed paths: <root>/<name>/…, so that no two sources share a name.
A snapshot whose content was checked carries the tag `good`; nothing else is a baseline, or restored unless somebody names it.
"""

import fnmatch
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

from common import ProblemError

SOURCE_ROOT = Path("/source")
MANIFEST = Path("manifest") / "manifest.json"  # below the source root, and so in every snapshot
GOOD = "good"
UNCHECKED = "unchecked"

# Dovecot builds these anew. Its uid lists, keywords, subscriptions and the Sieve scripts are kept.
# A mail queue that is restored would be sent again, and logs are not mail.
QUEUE = "spool-postfix"
ASIDE = ".before-restore-"  # what a restore put out of the way
EXCLUDED = (
    *("dovecot.index*", "dovecot.list.index*", "dovecot.mailbox.log*", "dovecot-uidlist.lock", "*.svbin", "*.log"),
    *(QUEUE, f"{ASIDE}*"),
)

LOCK_WAIT = 1860  # seconds; restic calls a lock stale after 1800, and only then takes it away
LOCK_POLL = 5


@dataclass(frozen=True)
class Snapshot:
    id: str
    time: float
    tags: tuple[str, ...]


class Restic:
    """The restic binary on one local repository, with the snapshots of one host, whose sources lay below `root`."""

    def __init__(self, binary: str, repository: Path, key_file: Path, scratch: Path, *, host: str, root: Path) -> None:
        self.repository, self.host, self.root = repository, host, root
        self._command = [binary, "--repo", str(repository), "--password-file", str(key_file)]
        self._command += ["--cache-dir", str(scratch / "cache"), "--json"]
        self._environment = {**os.environ, "TMPDIR": str(scratch)}  # restic puts its packs together there
        if not key_file.is_file() or not key_file.read_bytes().strip():
            raise ProblemError(f"the repository's key {key_file.name} is missing or empty")

    def run(self, *arguments: str, allowed: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        """Raises ProblemError with restic's last words for any other exit code."""
        command = [*self._command, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=self._environment)
        if done.returncode not in allowed:
            words = " / ".join(_plain(line) for line in done.stderr.strip().splitlines()[-4:])
            raise ProblemError(f"restic {arguments[0]} failed ({done.returncode}): {words}")
        return done

    def exists(self) -> bool:
        return (self.repository / "config").is_file()

    def create(self) -> None:
        """Never beside the remains of an older repository: that is a damage to look at, not a first run."""
        self.repository.mkdir(parents=True, exist_ok=True)
        if left := sorted(path.name for path in self.repository.iterdir()):
            raise ProblemError(f"{self.repository} has no config but holds {', '.join(left[:5])}: the repository is damaged")
        self.run("init")

    def free_locks(self) -> None:
        """Take away what a killed run of this job left behind; wait for anybody else who still works.

        The job never runs twice at a time and its pods share a host name, so a lock with that name is its own dead one.
        """
        deadline = time.monotonic() + LOCK_WAIT
        while locks := self._locks():
            if {lock.get("hostname") for lock in locks} <= {socket.gethostname()}:
                print(f"removing {len(locks)} lock(s) of an earlier run that was killed")
                self.run("unlock", "--remove-all")
                return
            if time.monotonic() > deadline:
                raise ProblemError("the repository is locked by another program")
            self.run("unlock")  # restic removes those that are stale
            time.sleep(LOCK_POLL)

    def _locks(self) -> list[dict[str, Any]]:
        folder = self.repository / "locks"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        locks = []
        for name in names:
            shown = self.run("cat", "lock", name, "--no-lock", allowed=(0, 1))
            if shown.returncode == 0:  # else it went away meanwhile, or was never written out
                locks.append(json.loads(shown.stdout))
            elif (folder / name).exists():
                locks.append({"hostname": socket.gethostname()})
        return locks

    def snapshots(self, *arguments: str) -> list[Snapshot]:
        """This host's snapshots, oldest first."""
        rows = json.loads(self.run("snapshots", "--no-lock", "--host", self.host, *arguments).stdout or "null") or []
        found = [Snapshot(row["id"], _seconds(row["time"]), tuple(row.get("tags") or ())) for row in rows]
        return sorted(found, key=lambda snapshot: snapshot.time)

    def forget(self, keep: list[str], gone: list[str]) -> list[float]:
        """Let good snapshots go by the rule `keep`, and those named; the times of the good ones that stay, oldest first."""
        if gone:
            self.run("forget", *gone)
        told = self.run("forget", "--host", self.host, "--tag", GOOD, "--group-by", "host", *keep, "--prune").stdout
        groups, _ = json.JSONDecoder().raw_decode(told.lstrip())
        return sorted(_seconds(row["time"]) for group in groups for row in group["keep"])

    def good(self, at: float | None = None) -> Snapshot | None:
        """The newest good snapshot, or the newest one at a moment (Unix time)."""
        found = [s for s in self.snapshots("--tag", GOOD) if at is None or s.time <= at]
        return found[-1] if found else None

    def manifest(self, snapshot: Snapshot) -> dict[str, Any]:
        return json.loads(self.run("dump", "--no-lock", snapshot.id, str(self.root / MANIFEST)).stdout)

    def files(self, snapshot_id: str) -> Iterator[str]:
        """The paths of all files in a snapshot."""
        for line in self.run("ls", "--no-lock", snapshot_id).stdout.splitlines():
            row = json.loads(line)
            if row.get("type") == "file":
                yield row["path"]

    def size(self) -> int:
        """Bytes on disk."""
        return sum(os.lstat(Path(folder) / name).st_size for folder, _, names in os.walk(self.repository) for name in names)


def _plain(line: str) -> str:
    """restic's words out of its JSON, if it is that."""
    try:
        row = json.loads(line)
    except ValueError:
        return line
    if not isinstance(row, dict):
        return line
    error = row.get("error")
    return str(row.get("message") or (error.get("message") if isinstance(error, dict) else error) or line)


def _seconds(stamp: str) -> float:
    """Unix time of an RFC 3339 stamp with nanoseconds."""
    head, _, rest = stamp.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    zone = rest[digits:] if rest else ""
    return datetime.fromisoformat(f"{head}.{rest[:6][:digits].ljust(6, '0')}{zone}" if rest else head.replace("Z", "+00:00")).timestamp()


@dataclass
class Survey:
    """What the sources hold: a manifest to be saved and compared, and each file's key and age, to find it again in a snapshot."""

    manifest: dict[str, Any]
    modified: dict[str, float]  # Unix time by key; of a message, the date of its arrival, wherever it is moved


_EXCLUDED = re.compile("|".join(map(fnmatch.translate, EXCLUDED)))


def excluded(name: str) -> bool:
    return _EXCLUDED.match(name) is not None


def key_of(path: str) -> str:
    """What stays of a file's path when its flags change: a message keeps its unique name, and moves from new to cur (maildir)."""
    folder, _, name = path.rpartition("/")
    if folder.endswith(("/cur", "/new")):
        return f"{folder[:-4]}/*/{name.partition(':')[0]}"
    return path


def survey(root: Path, names: list[str], maildirs: str | None) -> Survey:
    """Walk the sources. `maildirs` names the one that holds Maildirs as <domain>/<user>; its messages are counted by mailbox."""
    sources: dict[str, dict[str, int]] = {}
    mailboxes: dict[str, dict[str, Any]] = {}
    modified: dict[str, float] = {}
    for name in names:
        top = root / name
        if not top.is_dir():
            raise ProblemError(f"source {name}: {top} is missing")
        files = total = 0
        for path, status in _walk(top):
            modified[key_of(path)] = status.st_mtime
            files += 1
            total += status.st_size
            parts = path[len(str(top)) + 1 :].split("/")
            if name == maildirs and len(parts) >= 4 and parts[-2] in {"cur", "new"}:
                box = mailboxes.setdefault(f"{parts[1]}@{parts[0]}", {"messages": 0, "bytes": 0, "newest": {"time": 0.0, "path": ""}})
                box["messages"] += 1
                box["bytes"] += status.st_size
                if status.st_mtime >= box["newest"]["time"]:
                    box["newest"] = {"time": status.st_mtime, "path": path}
        sources[name] = {"files": files, "bytes": total}
    for box in mailboxes.values():
        box["newest"]["message_id"] = message_id(Path(box["newest"].pop("path")))
    return Survey({"sources": sources, "mailboxes": mailboxes}, modified)


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Every file that is to be saved, with its status; what vanishes meanwhile is skipped, what cannot be read is an error."""
    waiting = [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ProblemError(f"cannot read {error.filename}: {error.strerror}") from None
        for entry in entries:
            if excluded(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                try:
                    yield entry.path, entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue


def message_id(path: Path) -> str | None:
    """The Message-ID of a message file; None where it has none, or where the file is gone."""
    try:
        with path.open("rb") as file:
            found = BytesHeaderParser().parse(file).get("Message-ID")
    except OSError:
        return None
    return " ".join(str(found).split()) if found else None


def falls(before: dict[str, Any], now: dict[str, Any], max_fall: int) -> Iterator[str]:
    """Every mailbox and source that lost more than `max_fall` percent since an earlier manifest, one sentence each."""
    small = 20  # of a few messages most go on any day; that all of them are gone is worth a question
    for address, box in before["mailboxes"].items():
        count = now["mailboxes"].get(address, {"messages": 0})["messages"]
        if (box["messages"] > small or count == 0 < box["messages"]) and count * 100 < box["messages"] * (100 - max_fall):
            yield f"{address} fell from {box['messages']} to {count} messages"
    for name, source in before["sources"].items():
        count = now["sources"].get(name, {"files": 0})["files"]
        if source["files"] > small and count * 100 < source["files"] * (100 - max_fall):
            yield f"source {name} fell from {source['files']} to {count} files"


def terminate_cleanly(*_: object) -> None:
    """For SIGTERM: end by an exception, so that what was begun is ended in order."""
    sys.exit(143)
