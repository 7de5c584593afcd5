"""Saves the sources to a restic repository, proves that they are in it, and tells a Pushgateway.

In order: survey the sources; refuse an empty or shrunken one; save, and save again while files vanished under way; find every
file that was there before and after in the snapshot; only then call the snapshot good, let old ones go, and read a part of the
repository back. Ends with 0 when all of that held, else with 1.
"""

import argparse
import errno
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import Metrics, ProblemError, push
from repository import EXCLUDED, GOOD, MANIFEST, SOURCE_ROOT, UNCHECKED, Restic, Snapshot, Survey, falls, key_of, survey, terminate_cleanly

VERIFIED = "Whether the repository was sound and a part of it could be read back"
PASSES = 4  # the first, and one more for each time that files vanished while they were read


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


def save(restic: Restic, before: Survey, options: argparse.Namespace) -> tuple[Run, Survey]:
    """Save until nothing that stays is missing from the snapshot; and what was found before the last pass."""
    run, lost = Run(), set[str]()
    while run.passes < PASSES:
        run.passes += 1
        began = time.time()
        _write_manifest(options.root, before)
        _pass(restic, options, run)
        after = survey(options.root, options.source, options.maildirs)
        saved = {key_of(path) for path in restic.files(run.snapshot)}
        # Older than the pass and not found before it: moved while it ran, perhaps from a folder not yet read to one already read.
        lost = {key for key, modified in after.modified.items() if (key in before.modified or modified < began) and key not in saved}
        if not lost:
            return run, before
        run.superseded.append(run.snapshot)
        print(f"pass {run.passes}: {len(lost)} files changed their place under way; once more")
        before = after
    raise ProblemError(f"after {PASSES} passes the snapshot still lacks {len(lost)} files that are in the source, such as {min(lost)}")


def _pass(restic: Restic, options: argparse.Namespace, run: Run) -> None:
    """One `restic backup`. Files may vanish while they are read; what is there and cannot be read is an error."""
    excludes = [argument for pattern in EXCLUDED for argument in ("--exclude", pattern)]
    paths = [str(options.root / name) for name in (*options.source, MANIFEST.parts[0])]
    done = restic.run("backup", "--host", restic.host, "--tag", UNCHECKED, *excludes, *paths, allowed=(0, 3))
    vanished = 0
    for line in done.stderr.splitlines():
        row = _row(line)
        if row.get("message_type") == "error":
            error, path = row.get("error") or {}, row.get("item", "")
            if error.get("Err") != errno.ENOENT and "no such file" not in str(error) and os.path.lexists(path):
                raise ProblemError(f"cannot read {path}")
            vanished += 1
    if done.returncode and not vanished:
        raise ProblemError("restic could not read everything and does not say what")
    summary = next(row for row in map(_row, reversed(done.stdout.splitlines())) if row.get("message_type") == "summary")
    run.snapshot = summary["snapshot_id"]
    run.read += summary["total_bytes_processed"]
    run.written += summary["data_added"]
    run.vanished += vanished


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _write_manifest(root: Path, found: Survey) -> None:
    """Only when it says something new, so that an unchanged source makes an unchanged snapshot."""
    path, text = root / MANIFEST, json.dumps(found.manifest, sort_keys=True, indent=1)
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, encoding="utf-8")


def check_fall(restic: Restic, found: Survey, earlier: list[Snapshot], options: argparse.Namespace) -> None:
    """Raise when the source is empty, or holds so much less than the last good snapshot that something is wrong."""
    if options.maildirs and not found.manifest["mailboxes"]:
        raise ProblemError(f"source {options.maildirs} holds no mailbox")
    if not any(source["files"] for source in found.manifest["sources"].values()):
        raise ProblemError("no source holds a file")
    good = [snapshot for snapshot in earlier if GOOD in snapshot.tags]
    if not good or options.accept_fall:
        print("nothing to compare with" if not good else "whatever is missing since the last backup is accepted")
        return
    last = good[-1]
    if fallen := list(falls(restic.manifest(last), found.manifest, options.max_fall)):
        raise ProblemError(
            f"{'; '.join(fallen)}: more than {options.max_fall} % less than in snapshot {last.id[:8]}. Nothing was saved or removed. "
            "If that is meant, run the job once with --accept-fall (docs/runbooks/restore.md)"
        )


def verify(restic: Restic, parts: int) -> None:
    """Read one part of the repository back, a different one each day, after the one that was damaged the last time."""
    damaged = restic.repository / "damaged"  # restic does not mind it; another day's sound part must not hide the damage
    day = datetime.now(UTC).toordinal()
    today = f"{(day + day // parts) % parts + 1}/{parts}"  # the second summand for schedules that come every `parts` days
    for part in dict.fromkeys([*(damaged.read_text("utf-8").split() if damaged.exists() else ()), today]):
        try:
            restic.run("check", f"--read-data-subset={part}")
        except ProblemError as error:
            damaged.write_text(part, encoding="utf-8")
            raise VerificationError(str(error)) from None
        print(f"repository is sound; part {part} was read back")
    damaged.unlink(missing_ok=True)


def back_up(options: argparse.Namespace, metrics: Metrics) -> None:
    if len(set(options.source)) < len(options.source) or MANIFEST.parts[0] in options.source:
        raise ProblemError("each source needs a name of its own")
    found = survey(options.root, options.source, options.maildirs)
    restic = Restic(options.restic, options.repository, options.key_file, options.scratch, host=options.job, root=options.root)
    if not restic.exists():
        restic.create()
    restic.free_locks()
    earlier = restic.snapshots()
    check_fall(restic, found, earlier, options)
    run, found = save(restic, found, options)
    restic.run("tag", "--set", GOOD, run.snapshot)
    for address, box in sorted(found.manifest["mailboxes"].items()):
        metrics.set("backup_messages", box["messages"], "Messages of each mailbox in the newest snapshot", mailbox=address)
    for name, source in found.manifest["sources"].items():
        metrics.set("backup_files", source["files"], "Files of each source in the newest snapshot", source=name)

    keep = ["--keep-daily", str(options.keep_daily), "--keep-weekly", str(options.keep_weekly)]
    kept = restic.forget(keep, [snapshot.id for snapshot in earlier if UNCHECKED in snapshot.tags] + run.superseded)
    verify(restic, options.verify_parts)
    metrics.set("backup_verified", 1, VERIFIED)
    for name, value, meaning in (
        ("read_bytes", run.read, "Bytes that were looked at"),
        ("written_bytes", run.written, "Bytes that were new"),
        ("output_bytes", restic.size(), "Bytes of the whole repository"),
        ("vanished_files", run.vanished, "Files that vanished while they were read"),
        ("passes", run.passes, "Passes until nothing was missing"),
        ("snapshots", len(kept), "Good snapshots in the repository"),
        ("newest_snapshot_timestamp", kept[-1], "When the newest good snapshot was made"),
        ("oldest_snapshot_timestamp", kept[0], "When the oldest good snapshot was made"),
    ):
        metrics.set(f"backup_{name}", value, meaning)
    print(f"{run.read} bytes read, {run.written} new, {run.vanished} vanished, {run.passes} passes")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="group in the Pushgateway, and host name in the repository")
    parser.add_argument("--root", type=Path, default=SOURCE_ROOT, help="folder of the sources, and of a writable `manifest`")
    parser.add_argument("--source", action="append", required=True, help="name of a source: a folder below the root")
    parser.add_argument("--maildirs", help="the source that holds Maildirs")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--restic", default="restic")
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for what is needed during the run only")
    parser.add_argument("--max-fall", type=int, required=True, help="percent that a mailbox may lose from one run to the next")
    parser.add_argument("--accept-fall", action="store_true", help="save what is there now, however little")
    parser.add_argument("--keep-daily", type=int, required=True)
    parser.add_argument("--keep-weekly", type=int, required=True)
    parser.add_argument("--verify-parts", type=int, required=True)
    parser.add_argument("--pushgateway")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, terminate_cleanly)

    metrics, started = Metrics(), time.monotonic()
    try:
        back_up(options, metrics)
    except Exception as error:  # noqa: BLE001 - whatever it is, the last run's success must not stand any longer
        print(f"backup failed: {error if isinstance(error, ProblemError) else f'{type(error).__name__}: {error}'}", file=sys.stderr)
        failure = Metrics()
        failure.set("backup_success", 0, "Whether the last run saved and proved everything")
        if isinstance(error, VerificationError):
            failure.set("backup_verified", 0, VERIFIED)
        push(options.pushgateway, options.job, failure)
        return 1
    metrics.set("backup_success", 1, "Whether the last run saved and proved everything")
    metrics.set("backup_duration_seconds", time.monotonic() - started, "How long the run took")
    metrics.set("backup_last_success_timestamp", time.time(), "When the last run that saved and proved everything ended")
    return 1 if push(options.pushgateway, options.job, metrics, replace=True) is False else 0


if __name__ == "__main__":
    sys.exit(main())
