"""A restic repository: used by backup, drill and restore.

A repository holds one kind of source under fixed paths: <root>/<name>/…, so that no two sources share a name.
A snapshot whose content was checked carries the tag `good`; nothing else is a baseline, or restored unless it is named.
"""

import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from common import ProblemError

SOURCE_ROOT = Path("/source")
MANIFEST = Path("manifest") / "manifest.json"  # below the source root, and so in every snapshot
QUEUE = Path("state") / "spool-postfix"  # below the source root
ASIDE = ".before-restore-"  # prefix of a folder at the top of a source: what a restore moved out of the way
GOOD = "good"
UNCHECKED = "unchecked"
WRONG_CLOCK = "wrong-clock"
GONE = "gone-"  # tag: how many of the files in the manifest were deleted while the snapshot was made

LOCK_WAIT = 1860  # seconds; restic calls a lock stale after 1800, and only then takes it away
LOCK_POLL = 5
LOCK_WRITTEN = 60  # seconds after which a lock that cannot be read is not being written any more
CLOCK_TOLERANCE = 3600  # seconds
STOP_SECONDS = 15  # for restic to take its lock away; half of what a pod is given to end remains for the report


@dataclass(frozen=True)
class Snapshot:
    id: str
    time: float
    tags: tuple[str, ...]
    original: str  # its id before its tags were changed

    @property
    def gone(self) -> int:
        return next((int(tag.removeprefix(GONE)) for tag in self.tags if re.fullmatch(f"{GONE}[0-9]+", tag)), 0)


@dataclass(frozen=True)
class Node:
    """A file or folder in a snapshot. What is not UTF-8 in a path is U+FFFD."""

    path: str
    kind: str
    size: int


class Restic:
    """The restic binary on one local repository, with the snapshots of one host, whose sources were below `root`."""

    def __init__(self, binary: str, repository: Path, key_file: Path, scratch: Path, *, host: str, root: Path) -> None:
        self.repository, self.host, self.root, self._scratch = repository, host, root, scratch
        self._command = [binary, "--repo", str(repository), "--password-file", str(key_file)]
        self._command += ["--cache-dir", str(scratch / "cache"), "--json", "--quiet"]
        # restic builds its packs in TMPDIR. Go would let the heap double between two collections (pkg.go.dev/runtime).
        self._environment = {**os.environ, "TMPDIR": str(scratch), "GOGC": "30"}
        if not key_file.is_file() or not key_file.read_bytes().strip():
            raise ProblemError(f"the repository's key {key_file.name} is missing or empty")

    @contextmanager
    def _process(self, arguments: tuple[str, ...], allowed: tuple[int, ...]) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
        """restic at work, and the list that its errors are put in when it has ended."""
        errors: list[str] = []
        with tempfile.TemporaryFile("w+", dir=self._scratch, encoding="utf-8", errors="replace") as words:
            process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
                encoding="utf-8",
                errors="replace",
                env=self._environment,
            )
            try:
                yield process, errors
                process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    try:
                        process.wait(STOP_SECONDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
            words.seek(0)
            errors += words.read().splitlines()
        if process.returncode not in allowed:
            last = " / ".join(_plain(line) for line in errors[-4:])
            raise ProblemError(f"restic {arguments[0]} failed ({process.returncode}): {last}")

    def run(self, *arguments: str, allowed: tuple[int, ...] = (0,)) -> tuple[int, str, list[str]]:
        """Exit code, output and lines of errors. Raises ProblemError with restic's last words for any other exit code."""
        with self._process(arguments, allowed) as (process, errors):
            assert process.stdout is not None  # noqa: S101
            output = process.stdout.read()
        return process.returncode, output, errors

    def exists(self) -> bool:
        return (self.repository / "config").is_file()

    def create(self) -> None:
        self.repository.mkdir(parents=True, exist_ok=True)
        self._must_be_whole()
        self.run("init")

    def must_exist(self) -> None:
        if not self.exists():
            self._must_be_whole()
            raise ProblemError(
                f"there is no repository in {self.repository}. Is the export mounted, is it the right one, and is the disk below it "
                "mounted on its server? Only if this backup has never run: run it once with --new-repository (docs/runbooks/restore.md)"
            )

    def _must_be_whole(self) -> None:
        """The remains of an older repository are damage to look at, not a reason for a new one beside them."""
        left = sorted(path.name for path in self.repository.iterdir()) if self.repository.is_dir() else []
        if left and not self.exists():
            raise ProblemError(f"{self.repository} has no config but holds {', '.join(left[:5])}: the repository is damaged")

    def fingerprint(self) -> str:
        """Tells one repository from another: `sha256sum <repository>/config`, its first 16 digits. The file never changes."""
        return sha256((self.repository / "config").read_bytes()).hexdigest()[:16]

    def free_locks(self) -> None:
        """Remove what a killed run of this job left behind; wait for another process that still works.

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
            code, output, _ = self.run("cat", "lock", name, "--no-lock", allowed=(0, 1))
            if code == 0:
                locks.append(json.loads(output))
                continue
            try:  # it went away meanwhile, is being written, or was never written out
                age = time.time() - (folder / name).stat().st_mtime
            except FileNotFoundError:
                continue
            locks.append({"hostname": socket.gethostname() if age > LOCK_WRITTEN else None})
        return locks

    def snapshots(self) -> list[Snapshot]:
        """This host's snapshots, oldest first."""
        self.must_exist()
        _, output, _ = self.run("snapshots", "--no-lock", "--host", self.host)
        return _sorted(json.loads(output or "null") or [])

    def forget(self, keep: list[str], gone: list[str]) -> list[Snapshot]:
        """Remove good snapshots by the rule `keep`, and those named; the good ones that stay, oldest first."""
        if gone:
            self.run("forget", *gone)
        _, output, _ = self.run("forget", "--host", self.host, "--tag", GOOD, "--group-by", "host", *keep, "--prune")
        groups, _ = json.JSONDecoder().raw_decode(output.lstrip())
        return _sorted([row for group in groups for row in group["keep"]])

    def good(self, at: float | None = None) -> Snapshot | None:
        """The newest good snapshot, or the newest one at a moment (Unix time)."""
        snapshots = self.snapshots()
        check_clock(snapshots)
        found = [s for s in snapshots if GOOD in s.tags and (at is None or s.time <= at)]
        return found[-1] if found else None

    def manifest(self, snapshot: Snapshot) -> dict[str, Any]:
        _, output, _ = self.run("dump", "--no-lock", snapshot.id, str(self.root / MANIFEST))
        return json.loads(output)

    def nodes(self, snapshot_id: str) -> Iterator[Node]:
        """All files and folders of a snapshot, one after the other: a list of them could be larger than memory."""
        with self._process(("ls", "--no-lock", snapshot_id), (0,)) as (process, _):
            assert process.stdout is not None  # noqa: S101
            for line in process.stdout:
                row = json.loads(line)
                if "path" in row and "type" in row:
                    yield Node(row["path"], row["type"], row.get("size", 0))

    @contextmanager
    def dump(self, snapshot_id: str, path: str) -> Iterator[IO[bytes]]:
        """A folder of a snapshot as a tar archive, to be read to its end."""
        with self._process(("dump", "--no-lock", "--archive", "tar", snapshot_id, path), (0,)) as (process, _):
            assert process.stdout is not None  # noqa: S101
            try:
                yield process.stdout.buffer  # pyright: ignore[reportAttributeAccessIssue]
            except ProblemError:
                if process.wait() == 0:
                    raise

    def size(self) -> int:
        """Bytes on disk."""
        return sum(os.lstat(Path(folder) / name).st_size for folder, _, names in os.walk(self.repository) for name in names)


def check_clock(snapshots: list[Snapshot]) -> None:
    """Raise where a snapshot is of the future: it would be the newest forever, or this run's would be the first to be forgotten."""
    newest = max((snapshot for snapshot in snapshots if WRONG_CLOCK not in snapshot.tags), key=lambda s: s.time, default=None)
    if newest and newest.time > time.time() + CLOCK_TOLERANCE:
        raise ProblemError(
            f"this node's clock says {stamp(time.time())}, but snapshot {newest.id[:8]} is of {stamp(newest.time)}: one of the two clocks "
            'is wrong (docs/runbooks/restore.md, "The clock is wrong")'
        )


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def damaged_paths(errors: list[str]) -> list[str]:
    """The paths that `restic restore` could not bring back, from its JSON (0.17 and later) or its text."""
    paths = []
    for line in errors:
        row = row_of(line)
        if row.get("message_type") == "error" and row.get("item"):
            paths.append(row["item"])
        elif found := re.match(r"ignoring error for (/.*?): ", line):
            paths.append(found[1])
    return list(dict.fromkeys(paths))


def row_of(line: str) -> dict[str, Any]:
    """A line's JSON object; empty where it is not one."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _sorted(rows: list[dict[str, Any]]) -> list[Snapshot]:
    found = [Snapshot(row["id"], _seconds(row["time"]), tuple(row.get("tags") or ()), row.get("original") or row["id"]) for row in rows]
    return sorted(found, key=lambda snapshot: snapshot.time)


def _plain(line: str) -> str:
    """restic's words out of its JSON, if it is that."""
    row = row_of(line)
    error = row.get("error")
    return str(row.get("message") or (error.get("message") if isinstance(error, dict) else error) or line)


def _seconds(text: str) -> float:
    """Unix time of an RFC 3339 stamp with nanoseconds."""
    head, _, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    zone = rest[digits:] if rest else ""
    return datetime.fromisoformat(f"{head}.{rest[:6][:digits].ljust(6, '0')}{zone}" if rest else head.replace("Z", "+00:00")).timestamp()
