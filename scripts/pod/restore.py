"""Brings mail back from the repository: a dry run unless --go is given, and nothing that is there now is ever deleted.

`list` shows the snapshots. `whole` puts every source back, and needs the server stopped. `mailbox` and `message` add what is
missing to the mailbox, each message in the folder it came from with its flags, or all of it below a folder of its own (--into),
while the server runs. `mailbox --replace` puts the mailbox back as it was, UIDs included, and needs the server stopped.
What the repository has lost is named, and all else is restored. Ends with 0 when everything came back, else with 1.
"""

import argparse
import fcntl
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from common import ProblemError, reason, terminate_cleanly
from maildir import Message, add, copy_as_it_is, copy_rights, messages, raise_next_uids
from repository import ASIDE, QUEUE, SOURCE_ROOT, Restic, Snapshot, damaged_paths, stamp
from survey import Keys, message_id

MAILBOX = re.compile(r"[\w+=-][^\s/@*?\[\]\\]*@[\w-][\w.-]*")  # a path is made of it, and restic takes that for a pattern
INTO = re.compile(r"[\w+ -]+(\.[\w+ -]+)*", re.ASCII)


def moment(text: str) -> float:
    """Unix time of `2026-11-01` (its end), `2026-11-01T08:00` or with a zone; without one it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ProblemError(f"--at: write a time such as 2026-11-01 or 2026-11-01T08:00, or a snapshot's id, not {text}") from None
    parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return (parsed + (timedelta(days=1) if len(text) == 10 else timedelta())).timestamp()


def choose(restic: Restic, at: str | None) -> Snapshot:
    """The newest good snapshot at that time, or the one whose id begins so."""
    if at and re.fullmatch(r"[0-9a-f]{8,64}", at):
        found = [snapshot for snapshot in restic.snapshots() if snapshot.id.startswith(at)]
        if len(found) > 1:
            raise ProblemError(f"--at: the ids of {len(found)} snapshots begin with {at}; write more of it")
        chosen = found[0] if found else None
    else:
        chosen = restic.good(moment(at) if at else None)
    if chosen is None:
        raise ProblemError(f"no snapshot {'at ' + at if at else 'is there'}; `list` shows what there is")
    return chosen


def show(restic: Restic) -> None:
    for snapshot in restic.snapshots():
        try:
            manifest = restic.manifest(snapshot)
            content = ", ".join(f"{address} {box['messages']}" for address, box in sorted(manifest["mailboxes"].items()))
            content = content or str(manifest["sources"])
        except ProblemError:
            content = "no manifest: not made by the backup job"
        print(f"{snapshot.id[:8]}  {stamp(snapshot.time)}  {','.join(snapshot.tags)}  {content}")


@contextmanager
def stopped(options: argparse.Namespace) -> Iterator[None]:
    """Keep the mail server stopped: two writers would spoil the lists of UIDs.

    Raises while something answers at host:port, or where that name cannot be resolved. A server that is ending, or is not
    ready, does not answer and writes all the same: its Postfix holds a lock (flock, seen across containers, since a volume for
    one node at a time has one kernel). Held here, it keeps a Postfix that starts meanwhile from running.
    """
    running = options.running
    host, _, port = running.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
    except socket.gaierror as error:
        raise ProblemError(f"{running} cannot be resolved ({error.strerror}), so it is unknown whether the server is stopped") from None
    except OSError:
        pass
    else:
        raise ProblemError(f"{running} still answers; stop the server first (docs/runbooks/restore.md)")
    with ExitStack() as stack:
        if (options.root / QUEUE).is_dir():
            (options.root / QUEUE / "pid").mkdir(exist_ok=True)
            lock = stack.enter_context((options.root / QUEUE / "pid" / "master.pid").open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ProblemError("Postfix still runs on this volume; wait until its pod is gone (docs/runbooks/restore.md)") from None
        yield


def move_aside(source: Path, path: Path) -> Path | None:
    """Move all that is in a folder into one at the top of its source, named by the time; None where there was nothing.

    At the top, because below a mailbox the user could have a folder of that name. But not the queue: no snapshot has it, and
    the mail in it was accepted and must still go out.
    """
    queue = QUEUE.name if source.name == QUEUE.parts[0] else None
    entries = path.iterdir() if path.is_dir() else ()
    present = [entry for entry in entries if path != source or (entry.name != queue and not entry.name.startswith(ASIDE))]
    if not present:
        return None
    aside = source / f"{ASIDE}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}" / path.relative_to(source)
    aside.mkdir(mode=0o700, parents=True)
    for entry in present:
        entry.rename(aside / entry.name)
    return aside


def free_space(needed: dict[str, int], options: argparse.Namespace) -> None:
    """Raise where a volume lacks free space for so many bytes by source, in addition to what the server needs to take mail."""
    volumes: dict[int, list[str]] = {}
    for name in needed:
        volumes.setdefault((options.root / name).stat().st_dev, []).append(name)
    for names in volumes.values():
        wanted = sum(needed[name] for name in names)
        free = shutil.disk_usage(options.root / names[0]).free
        if wanted and wanted * 1.1 + options.reserve > free:
            kept = f", of which {options.reserve >> 20} MiB must stay free for new mail" if options.reserve else ""
            raise ProblemError(
                f"{wanted >> 20} MiB of {', '.join(names)} would be written, but the volume has {free >> 20} MiB free{kept}; "
                "grow the volume first"
            )


def whole(restic: Restic, snapshot: Snapshot, options: argparse.Namespace) -> list[str]:
    sources: dict[str, Any] = restic.manifest(snapshot)["sources"]
    if strange := sorted(sources.keys() ^ set(options.source)):
        raise ProblemError(
            f"the snapshot has {', '.join(sorted(sources))} and this job {', '.join(sorted(options.source))}: {', '.join(strange)} would "
            "be emptied or left out. Restore with the settings that the backup was made with"
        )
    free_space({name: source["bytes"] for name, source in sources.items()}, options)
    for name, source in sources.items():
        print(f"source {name}: {source['files']} files, {source['bytes'] >> 20} MiB; what is there now is moved aside")
    if not options.go:
        return []
    with stopped(options):
        aside = {name: move_aside(options.root / name, options.root / name) for name in options.source}
        for name, path in aside.items():
            if path:
                print(f"source {name}: what was there is in {path.name}; delete it when all is well")
        paths = [argument for name in options.source for argument in ("--include", str(options.root / name))]
        errors = restore(restic, snapshot, "/", paths)
        if options.maildirs:
            mail = options.root / options.maildirs
            raise_next_uids(mail, aside[options.maildirs], mail)
    return errors


def restore(restic: Restic, snapshot: Snapshot, target: str, includes: list[str]) -> list[str]:
    """Run restic; the paths that it could not restore, because their part of the repository is damaged.

    Of a file in several parts restic writes the sound ones and zeros for the others, in its right size: such a file goes.
    """
    code, _, errors = restic.run("restore", snapshot.id, "--target", target, *includes, allowed=(0, 1))
    damaged = damaged_paths(errors)
    if code and not damaged:
        raise ProblemError(f"restic restore failed: {' / '.join(errors[-4:])}")
    for path in damaged:
        place = Path(target) / path.removeprefix(target).lstrip("/")
        if not place.is_dir():
            place.unlink(missing_ok=True)
    return damaged


def restored_maildir(restic: Restic, snapshot: Snapshot, options: argparse.Namespace) -> tuple[Path, Path, list[str]]:
    """A mailbox's Maildir out of the snapshot, in scratch; the live one; and what is damaged in the repository."""
    user, _, domain = options.mailbox.rpartition("@")
    live = options.root / options.maildirs / domain / user
    target = options.scratch / "restored"
    shutil.rmtree(target, ignore_errors=True)
    errors = restore(restic, snapshot, str(target), ["--include", str(live)])
    saved = target / str(live).lstrip("/")
    if not saved.is_dir():
        raise ProblemError(f"the snapshot has no mailbox {options.mailbox}; `list` shows what it has")
    return saved, live, errors


def mailbox(restic: Restic, snapshot: Snapshot, options: argparse.Namespace) -> list[str]:
    saved, live, errors = restored_maildir(restic, snapshot, options)
    ids = {options.message_id, f"<{options.message_id.strip('<>')}>"} if options.message_id else None

    def wanted() -> Iterator[Message]:
        return (message for message in messages(saved) if ids is None or message_id(Path(message.path)) in ids)

    total = sum(1 for _ in wanted())
    if ids and not total:
        raise ProblemError(f"{options.mailbox} has no message {options.message_id} in this snapshot")
    if not live.is_dir() and (options.message_id or options.into):
        raise ProblemError(f"{options.mailbox} is gone altogether; bring it back with `--what mailbox` and nothing else first")
    if options.replace or not live.is_dir():
        replace(saved, live, total, options)
        return errors
    present = Keys()
    for message in () if options.into else messages(live):
        present.add(message.unique)
    present.freeze()

    def missing() -> Iterator[Message]:
        return (message for message in wanted() if message.unique not in present)

    count = size = expiring = 0
    for message in missing():
        status = Path(message.path).stat()
        count, size = count + 1, size + status.st_size
        expiring += not options.into and expires(message, status.st_mtime, options)
    print(f"{options.mailbox}: {count} of {total} messages are to be added, {total - count} are there already")
    if expiring:
        raise ProblemError(
            f"{expiring} of them are old enough for retention to delete them again within hours; restore them into a folder of their own "
            "with --into (INTO=Restored)"
        )
    free_space({options.maildirs: size}, options)
    if options.go:
        for number, message in enumerate(missing()):
            add(message, live, options.into, number)
    return errors


def expires(message: Message, arrived: float, options: argparse.Namespace) -> bool:
    """Whether a retention rule covers the message. Which kind of mail it is, retention itself decides."""
    for rule in options.retention:
        box, folder, _, days = rule.split("|")
        on_disk = "" if folder.upper() == "INBOX" else f".{folder.replace('/', '.')}"
        if (box, on_disk) == (options.mailbox, message.folder) and arrived < time.time() - int(days) * 86400 and "F" not in message.flags:
            return True
    return False


def replace(saved: Path, live: Path, total: int, options: argparse.Namespace) -> None:
    print(f"{options.mailbox}: the mailbox becomes what it was, {total} messages; what is there now is moved aside")
    free_space({options.maildirs: sum(file.lstat().st_size for file in saved.rglob("*"))}, options)
    if not options.go:
        return
    with stopped(options):
        live.mkdir(parents=True, exist_ok=True)
        aside = move_aside(options.root / options.maildirs, live)
        if aside:
            print(f"what was there is in {aside.relative_to(options.root / options.maildirs)}; delete it when all is well")
        for path in sorted(saved.iterdir()):
            copy_as_it_is(path, live / path.name)
        copy_rights(saved, live)
        raise_next_uids(live, aside, options.root / options.maildirs)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True, help="host name of the snapshots: the backup job's name")
    parser.add_argument("--root", type=Path, default=SOURCE_ROOT, help="where the sources are mounted, as when they were saved")
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--maildirs", help="the source that holds Maildirs")
    parser.add_argument("--running", required=True, help="host:port that answers while the server runs")
    parser.add_argument("--reserve", type=int, default=0, help="bytes that must stay free for the server to take mail")
    parser.add_argument("--retention", action="append", default=[], metavar="MAILBOX|FOLDER|KIND|DAYS", help="a rule of the retention job")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--restic", default="restic")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--what", choices=("list", "whole", "mailbox", "message"), default="list")
    parser.add_argument("--at", help="time or snapshot id; without it the newest good snapshot")
    parser.add_argument("--mailbox", metavar="ADDRESS")
    parser.add_argument("--message-id")
    parser.add_argument("--into", metavar="FOLDER", help="a new folder for what is restored; without it everything goes where it was")
    parser.add_argument("--replace", action="store_true", help="put the mailbox back as it was instead of adding what is missing")
    parser.add_argument("--go", action="store_true", help="do it")
    options = parser.parse_args()
    if options.what in {"mailbox", "message"} and not (options.mailbox and options.maildirs):
        parser.error("--mailbox is needed")
    if options.mailbox is not None and not MAILBOX.fullmatch(options.mailbox):
        parser.error("--mailbox: an address such as me@example.org")
    if (options.what == "message") != bool(options.message_id):
        parser.error("--message-id belongs to --what message")
    if options.into is not None and (options.replace or not INTO.fullmatch(options.into)):
        parser.error("--into: a folder's name such as Restored, in ASCII, and not with --replace")
    if options.replace and options.what != "mailbox":
        parser.error("--replace belongs to --what mailbox")
    return options


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, terminate_cleanly)
    errors: list[str] = []
    try:
        restic = Restic(options.restic, options.repository, options.key_file, options.scratch, host=options.host, root=options.root)
        if options.what == "list":
            show(restic)
            return 0
        snapshot = choose(restic, options.at)
        print(f"snapshot {snapshot.id[:8]} of {stamp(snapshot.time)}")
        errors = (whole if options.what == "whole" else mailbox)(restic, snapshot, options)
    except (ProblemError, OSError, SystemExit) as error:
        print(f"restore: {reason(error)}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(options.scratch / "restored", ignore_errors=True)
    for path in errors:
        print(f"restore: damaged in the repository, not restored: {path}", file=sys.stderr)
    what = "done" if options.go else "dry run: nothing was changed; with --go it happens"
    print(f"{what}, all but {len(errors)} files that are damaged in the repository (docs/runbooks/restore.md)" if errors else what)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
