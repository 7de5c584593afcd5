"""Saves the sources to a restic repository, proves that they are in it, and tells a Pushgateway.

In order: survey the sources; refuse an empty or shrunken one and a wrong clock; save, and save again while files vanished under
way; find every file that was there before and after in the snapshot; only then call the snapshot good, read a part of the
repository back, and remove old snapshots. Ends with 0 when all of that held, else with 1.
"""

import argparse
import errno
import json
import os
import re
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from common import Metrics, ProblemError, push, reason, terminate_cleanly
from repository import (
    ASIDE,
    CLOCK_TOLERANCE,
    GONE,
    GOOD,
    MANIFEST,
    QUEUE,
    SOURCE_ROOT,
    UNCHECKED,
    WRONG_CLOCK,
    Restic,
    Snapshot,
    check_clock,
    row_of,
    stamp,
)
from survey import Keys, Survey, falls, key_of, survey

SUCCESS = "Whether the last run saved and proved everything"
VERIFIED = "Whether the repository was sound and a part of it could be read back"
PASSES = 4  # the first, and one more for each time that files vanished while they were read

# Dovecot rebuilds these. Only in their place, because restic's patterns match folders too: the name of an IMAP folder begins
# with a dot on disk, that of a mailbox is one level higher, and the user chooses both, and the names of Sieve scripts.
REBUILT = (
    *(f"*/*/{place}dovecot{name}" for place in ("", ".*/") for name in (".index*", "-uidlist.lock")),
    *("*/*/dovecot.list.index*", "*/*/dovecot.mailbox.log*", "*/*/home/*.svbin", "*/*/home/sieve/*.svbin"),
)


class VerificationError(ProblemError):
    """The repository is damaged."""


@dataclass
class Run:
    """What a run did, in restic's own figures; bytes."""

    snapshot: str = ""
    superseded: list[str] = field(default_factory=list)  # by a further pass
    read: int = 0
    written: int = 0
    vanished: int = 0
    passes: int = 0
    gone: int = 0  # files of the manifest that were deleted before the proof


def prepared(told: Path | None) -> dict[str, int]:
    """Rows of a database's tables, as the step that copied it told; its words, if it failed, end this run too."""
    if told is None:
        return {}
    lines = told.read_text("utf-8").splitlines() if told.exists() else []
    if not lines:
        raise ProblemError("the step before this one ended without a word; the log of container database says more")
    rows = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        if name == "error":
            raise ProblemError(f"database: {rest.strip()}")
        rows[name] = int(rest)
    return rows


def exclusions(options: argparse.Namespace) -> list[str]:
    """restic's patterns. The queue would be sent once more; what a restore moved aside is in other snapshots."""
    root = re.sub(r"([*?\[\\])", r"\\\1", str(options.root))
    patterns = [f"{root}/*/{ASIDE}*", f"{root}/{QUEUE}"]
    return patterns + [f"{root}/{options.maildirs}/{pattern}" for pattern in (REBUILT if options.maildirs else ())]


def save(restic: Restic, before: Survey, options: argparse.Namespace) -> tuple[Run, Survey]:
    """Save until nothing that stays is missing from the snapshot; and what was found before the last pass."""
    run = Run()
    while True:
        run.passes += 1
        began = time.time()
        _write_manifest(options.root, before)
        _pass(restic, options, run)
        after, lost, example = prove(restic, run.snapshot, before, began, options)
        if not lost:
            run.gone = before.keys.missing_in(after.keys)
            return run, before
        if run.passes == PASSES:
            raise ProblemError(
                f"after {PASSES} passes the snapshot still lacks {lost} files that are in the source, such as {example!r}. If the next run "
                "says the same, an exclusion of this program catches them, or another program renames them all the time"
            )
        run.superseded.append(run.snapshot)
        print(f"pass {run.passes}: {lost} files changed their place under way; once more")
        before = after


def prove(restic: Restic, snapshot: str, before: Survey, began: float, options: argparse.Namespace) -> tuple[Survey, int, str]:
    """What is there after a pass that began at a moment, how much of it is not in the snapshot and has to be, and an example."""
    saved = Keys()
    for node in restic.nodes(snapshot):
        saved.add(key_of(node.path) if node.kind == "file" else f"{key_of(node.path)}/")
    saved.freeze()
    lost, example = 0, ""

    def seen(key: str, path: str, modified: float) -> None:
        nonlocal lost, example
        # Older than the pass and not found before it: moved while it ran, perhaps from a folder not yet read to one already read.
        if key not in saved and (key in before.keys or (modified < began and not key.endswith("/"))):
            lost, example = lost + 1, path

    after = survey(options.root, options.source, options.maildirs, seen)
    after.manifest["rows"] = before.manifest["rows"]
    return after, lost, example


def _pass(restic: Restic, options: argparse.Namespace, run: Run) -> None:
    """One `restic backup`. Files may vanish while they are read; what is there and cannot be read is an error."""
    excludes = [argument for pattern in exclusions(options) for argument in ("--exclude", pattern)]
    paths = [str(options.root / name) for name in (*options.source, MANIFEST.parts[0])]
    code, output, errors = restic.run("backup", "--host", restic.host, "--tag", UNCHECKED, *excludes, *paths, allowed=(0, 3))
    vanished = 0
    for row in map(row_of, errors):
        if row.get("message_type") == "error":
            error, path = row.get("error") or {}, row.get("item", "")
            if error.get("Err") != errno.ENOENT and "no such file" not in str(error) and os.path.lexists(path):
                raise ProblemError(f"cannot read {path}")
            vanished += 1
    if code and not vanished:
        raise ProblemError("restic could not read everything and does not say what")
    summary = next(row for row in map(row_of, reversed(output.splitlines())) if row.get("message_type") == "summary")
    run.snapshot = summary["snapshot_id"]
    run.read += summary["total_bytes_processed"]
    run.written += summary["data_added"]
    run.vanished += vanished


def _write_manifest(root: Path, found: Survey) -> None:
    """Only when it says something new, so that an unchanged source makes an unchanged snapshot."""
    path, text = root / MANIFEST, json.dumps(found.manifest, sort_keys=True, indent=1)
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, encoding="utf-8")


def check_fall(restic: Restic, found: Survey, earlier: list[Snapshot], options: argparse.Namespace) -> None:
    """Raise when the source is empty, or differs so much from the last good snapshot that something is wrong."""
    if options.maildirs and not found.manifest["mailboxes"]:
        raise ProblemError(f"source {options.maildirs} holds no mailbox")
    if not any(source["files"] for source in found.manifest["sources"].values()):
        raise ProblemError("no source holds a file")
    good = [snapshot for snapshot in earlier if GOOD in snapshot.tags]
    if not good or options.accept_fall:
        print("nothing to compare with" if not good else "what is missing since the last backup is accepted")
        return
    last = good[-1]
    if fallen := list(falls(restic.manifest(last), found.manifest, options.max_fall)):
        raise ProblemError(
            f"{'; '.join(fallen)}; compared with snapshot {last.id[:8]}, of which {options.max_fall} % may be missing. Nothing was saved "
            "or removed. If that is meant, run the job once with --accept-fall (docs/runbooks/restore.md)"
        )


def check_server_clock(repository: Path) -> None:
    """Raise where the clock of the repository's server, which dates a new file there, is not this node's."""
    with tempfile.NamedTemporaryFile(dir=repository) as file:
        theirs, ours = os.fstat(file.fileno()).st_mtime, time.time()
    if abs(theirs - ours) > CLOCK_TOLERANCE:
        raise ProblemError(
            f"this node's clock says {stamp(ours)}, that of the repository's server {stamp(theirs)}; set the wrong one right "
            '(docs/runbooks/restore.md, "The clock is wrong")'
        )


def verify(restic: Restic, parts: int) -> None:
    """Read one part of the repository back, a different one each day, after the one that was damaged the last time."""
    damaged = restic.repository / "damaged"  # restic does not mind it; another day's sound part must not hide the damage
    for part in dict.fromkeys([*(damaged.read_text("utf-8").split() if damaged.exists() else ()), todays_part(datetime.now(UTC), parts)]):
        try:
            restic.run("check", f"--read-data-subset={part}")
        except ProblemError as error:
            damaged.write_text(part, encoding="utf-8")
            raise VerificationError(str(error)) from None
        print(f"repository is sound; part {part} was read back")
    damaged.unlink(missing_ok=True)


def todays_part(now: datetime, parts: int) -> str:
    """`n/parts` in turns; the second summand is for schedules that come every `parts` days."""
    day = now.toordinal()
    return f"{(day + day // parts) % parts + 1}/{parts}"


def back_up(options: argparse.Namespace, metrics: Metrics) -> None:
    if len(set(options.source)) < len(options.source) or MANIFEST.parts[0] in options.source:
        raise ProblemError("each source needs a name of its own")
    rows = prepared(options.prepared)
    found = survey(options.root, options.source, options.maildirs)
    found.manifest["rows"] = rows
    restic = Restic(options.restic, options.repository, options.key_file, options.scratch, host=options.job, root=options.root)
    if options.new_repository:
        if restic.exists():
            raise ProblemError("--new-repository: there is one already; run the job without it")
        restic.create()
    restic.must_exist()
    check_server_clock(options.repository)
    restic.free_locks()
    if options.wrong_clock:
        restic.run("tag", "--set", WRONG_CLOCK, options.wrong_clock)
    earlier = restic.snapshots()
    check_clock(earlier)
    check_fall(restic, found, earlier, options)
    run, found = save(restic, found, options)
    restic.run("tag", "--set", GOOD, "--set", f"{GONE}{run.gone}", run.snapshot)
    report(metrics, found)
    verify(restic, options.verify_parts)
    metrics.set("backup_verified", 1, VERIFIED)
    # Behind the check: in a damaged repository no snapshot may go.
    keep = ["--keep-daily", str(options.keep_daily), "--keep-weekly", str(options.keep_weekly)]
    kept = restic.forget(keep, [snapshot.id for snapshot in earlier if UNCHECKED in snapshot.tags] + run.superseded)
    if not any(snapshot.original.startswith(run.snapshot) for snapshot in kept):  # older versions of restic tell a short id
        raise ProblemError(
            "the snapshot of this run was the first to be forgotten, because the others are newer: is this node's clock right "
            '(docs/runbooks/restore.md, "The clock is wrong")?'
        )
    metrics.set("backup_repository", 1, "The repository, by the SHA-256 of its file `config`", id=restic.fingerprint())
    for name, value, meaning in (
        ("read_bytes", run.read, "Bytes that were looked at"),
        ("written_bytes", run.written, "Bytes that were new"),
        ("output_bytes", restic.size(), "Bytes of the whole repository"),
        ("vanished_files", run.vanished, "Files that vanished while they were read"),
        ("passes", run.passes, "Passes until nothing was missing"),
        ("snapshots", len(kept), "Good snapshots in the repository"),
        ("newest_snapshot_timestamp", kept[-1].time, "When the newest good snapshot was made"),
        ("oldest_snapshot_timestamp", kept[0].time, "When the oldest good snapshot was made"),
    ):
        metrics.set(f"backup_{name}", value, meaning)
    print(f"{run.read} bytes read, {run.written} new, {run.vanished} vanished, {run.passes} passes")


def report(metrics: Metrics, found: Survey) -> None:
    for address, box in sorted(found.manifest["mailboxes"].items()):
        metrics.set("backup_messages", box["messages"], "Messages of each mailbox in the newest snapshot", mailbox=address)
        metrics.set("backup_mismatched_messages", box["mismatched"], "Messages that are not of the size in their names", mailbox=address)
        if box["mismatched"]:
            print(f"{address}: {box['mismatched']} messages whose files are empty or not of the size in their names (S=)")
    for name, count in found.manifest["rows"].items():
        metrics.set("backup_rows", count, "Rows of the database's tables in the newest snapshot", table=name)
    for name, source in found.manifest["sources"].items():
        metrics.set("backup_files", source["files"], "Files of each source in the newest snapshot", source=name)
    metrics.set("backup_unsaved_links", len(found.links), "Symbolic links to folders of mail: what they point to is not saved")
    metrics.set("backup_moved_aside_messages", found.aside, "Messages that a restore moved aside: they are not saved")
    for path in found.links:
        print(f"{path!r} is a symbolic link: it is saved, what it points to is not")
    if found.aside:
        print(f"{found.aside} messages in folders {ASIDE}… are not saved; look through them and delete them (docs/runbooks/restore.md)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="group in the Pushgateway, and host name in the repository")
    parser.add_argument("--root", type=Path, default=SOURCE_ROOT, help="folder of the sources, and of a writable `manifest`")
    parser.add_argument("--source", action="append", required=True, help="name of a source: a folder below the root")
    parser.add_argument("--maildirs", help="the source that holds Maildirs")
    parser.add_argument("--prepared", type=Path, help="a file in which the step that copied a database told how it went")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--restic", default="restic")
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for what is needed during the run only")
    parser.add_argument("--max-fall", type=int, required=True, help="percent that a mailbox may lose from one run to the next")
    parser.add_argument("--accept-fall", action="store_true", help="save what is there now, however little")
    parser.add_argument("--new-repository", action="store_true", help="create the repository: the first run only")
    parser.add_argument("--wrong-clock", metavar="ID", help="a snapshot whose date is wrong: from now on it is ignored, and never deleted")
    parser.add_argument("--keep-daily", type=int, required=True)
    parser.add_argument("--keep-weekly", type=int, required=True)
    parser.add_argument("--verify-parts", type=int, required=True)
    parser.add_argument("--pushgateway")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, terminate_cleanly)

    metrics, started = Metrics(), time.monotonic()
    try:
        back_up(options, metrics)
    except BaseException as error:  # noqa: BLE001 - a deadline or a drain too: whatever it is, the last run's success must not remain
        print(f"backup failed: {reason(error)}", file=sys.stderr)
        failure = Metrics()
        failure.set("backup_success", 0, SUCCESS)
        if isinstance(error, VerificationError):
            failure.set("backup_verified", 0, VERIFIED)
        push(options.pushgateway, options.job, failure)
        return 1
    metrics.set("backup_success", 1, SUCCESS)
    metrics.set("backup_duration_seconds", time.monotonic() - started, "How long the run took")
    metrics.set("backup_last_success_timestamp", time.time(), "When the last run that saved and proved everything ended")
    return 1 if push(options.pushgateway, options.job, metrics, replace=True) is False else 0


if __name__ == "__main__":
    sys.exit(main())
