"""Brings mail back from the repository: a dry run unless --go is given, and nothing that is there now is ever deleted.

`list` shows the snapshots. `whole` puts every source back, and needs the server stopped. `mailbox` and `message` add what is
missing to the mailbox, each message in the folder it came from with its flags, or all of it below a folder of its own (--into),
while the server runs. `mailbox --replace` puts the mailbox back as it was, UIDs included, and needs the server stopped.
"""

import argparse
import fcntl
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common import ProblemError
from repository import ASIDE, QUEUE, SOURCE_ROOT, Restic, Snapshot, message_id, terminate_cleanly

MAILBOX = re.compile(r"[\w+=-][^\s/@*?\[\]\\]*@[\w-][\w.-]*")  # a path is made of it, and restic takes that for a pattern


@dataclass(frozen=True)
class Message:
    """A message file in a restored Maildir. `folder` is empty for the inbox, else as on disk, such as `.Sent`."""

    path: Path
    folder: str

    @property
    def unique(self) -> str:
        return self.path.name.partition(":")[0]

    @property
    def flags(self) -> str:
        """The standard flags; keywords are letters that mean something else in each folder."""
        return "".join(sorted(letter for letter in self.path.name.partition(":2,")[2] if letter in "DFPRST"))


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
        chosen = found[0] if len(found) == 1 else None
    else:
        chosen = restic.good(moment(at) if at else None)
    if chosen is None:
        raise ProblemError(f"no snapshot {'at ' + at if at else 'is there'}; `list` shows what there is")
    return chosen


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def show(restic: Restic) -> None:
    for snapshot in restic.snapshots():
        manifest = restic.manifest(snapshot)
        boxes = ", ".join(f"{address} {box['messages']}" for address, box in sorted(manifest["mailboxes"].items()))
        print(f"{snapshot.id[:8]}  {stamp(snapshot.time)}  {','.join(snapshot.tags)}  {boxes or manifest['sources']}")


def must_be_stopped(options: argparse.Namespace) -> None:
    """Raise while something answers at host:port, or nobody knows where that is: two writers would spoil the uid lists.

    A server that is ending, or is not ready, answers nobody and writes all the same: its Postfix holds a lock meanwhile
    (flock, seen across containers, since a volume for one node at a time has one kernel).
    """
    running = options.running
    host, _, port = running.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
    except socket.gaierror as error:
        raise ProblemError(f"{running} cannot be resolved ({error.strerror}), so nobody knows whether the server is stopped") from None
    except OSError:
        pass
    else:
        raise ProblemError(f"{running} still answers; stop the server first (docs/runbooks/restore.md)")
    for file in options.root.glob(f"*/{QUEUE}/pid/master.pid"):
        with file.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ProblemError("Postfix still runs on this volume; wait until its pod is gone (docs/runbooks/restore.md)") from None


def put_aside(folder: Path) -> Path | None:
    """Move all that is in a folder into one below it, named by the time; None where there was nothing.

    But not the queue: no snapshot has it, and the mail in it was accepted and must still go out.
    """
    present = [path for path in folder.iterdir() if path.name != QUEUE and not path.name.startswith(ASIDE)]
    if not present:
        return None
    aside = folder / f"{ASIDE}{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    aside.mkdir(mode=0o700)
    for path in present:
        path.rename(aside / path.name)
    return aside


def room(sources: dict[str, dict[str, int]], options: argparse.Namespace) -> None:
    """Raise where a volume has no room for its sources beside what is on it now."""
    volumes: dict[int, list[str]] = {}
    for name in options.source:
        volumes.setdefault((options.root / name).stat().st_dev, []).append(name)
    for names in volumes.values():
        needed = sum(sources[name]["bytes"] for name in names if name in sources)
        free = shutil.disk_usage(options.root / names[0]).free
        if needed * 1.1 > free:
            raise ProblemError(
                f"the snapshot has {needed >> 20} MiB of {', '.join(names)} and the volume {free >> 20} MiB free; grow the volume first"
            )


def whole(restic: Restic, snapshot: Snapshot, options: argparse.Namespace) -> None:
    sources = restic.manifest(snapshot)["sources"]
    room(sources, options)
    for name, source in sources.items():
        print(f"source {name}: {source['files']} files, {source['bytes'] >> 20} MiB; what is there now is put aside")
    if not options.go:
        return
    must_be_stopped(options)
    for name in options.source:
        if aside := put_aside(options.root / name):
            print(f"source {name}: what was there is in {aside.name}; delete it when all is well")
    paths = [argument for name in options.source for argument in ("--include", str(options.root / name))]
    restic.run("restore", snapshot.id, "--target", "/", *paths)


def restored_maildir(restic: Restic, snapshot: Snapshot, options: argparse.Namespace) -> tuple[Path, Path]:
    """A mailbox's Maildir out of the snapshot, in scratch; and the live one."""
    user, _, domain = options.mailbox.rpartition("@")
    live = options.root / options.maildirs / domain / user
    target = options.scratch / "restored"
    shutil.rmtree(target, ignore_errors=True)
    restic.run("restore", snapshot.id, "--target", str(target), "--include", str(live))
    saved = target / str(live).lstrip("/")
    if not saved.is_dir():
        raise ProblemError(f"the snapshot has no mailbox {options.mailbox}; `list` shows what it has")
    return saved, live


def messages(maildir: Path) -> Iterator[Message]:
    if not maildir.is_dir():
        return
    folders = (path for path in maildir.iterdir() if path.name.startswith(".") and not path.name.startswith(ASIDE))
    for folder in sorted([maildir, *folders]):
        for part in ("new", "cur"):
            if (folder / part).is_dir():
                name = "" if folder == maildir else folder.name
                yield from (Message(path, name) for path in sorted((folder / part).iterdir()) if path.is_file())


def mailbox(restic: Restic, snapshot: Snapshot, options: argparse.Namespace) -> None:
    saved, live = restored_maildir(restic, snapshot, options)
    wanted = list(messages(saved))
    if options.message_id:
        ids = {options.message_id, f"<{options.message_id.strip('<>')}>"}
        wanted = [message for message in wanted if message_id(message.path) in ids]
        if not wanted:
            raise ProblemError(f"{options.mailbox} has no message {options.message_id} in this snapshot")
    if not live.is_dir() and (options.message_id or options.into):
        raise ProblemError(f"{options.mailbox} is gone altogether; bring it back with `--what mailbox` and nothing else first")
    if options.replace or not live.is_dir():
        replace(saved, live, wanted, options)
        return
    present = set() if options.into else {message.unique for message in messages(live)}
    missing = [message for message in wanted if message.unique not in present]
    print(f"{options.mailbox}: {len(missing)} of {len(wanted)} messages are to be added, {len(wanted) - len(missing)} are there already")
    if options.go:
        for number, message in enumerate(missing):
            add(message, live, options.into, number)


def replace(saved: Path, live: Path, wanted: list[Message], options: argparse.Namespace) -> None:
    print(f"{options.mailbox}: the mailbox becomes what it was, {len(wanted)} messages; what is there now is put aside")
    if not options.go:
        return
    must_be_stopped(options)
    live.mkdir(parents=True, exist_ok=True)
    if aside := put_aside(live):
        print(f"what was there is in {aside.name} of the mailbox; delete it when all is well")
    for path in sorted(saved.iterdir()):
        copy_as_it_is(path, live / path.name)
    copy_rights(saved, live)


def copy_as_it_is(source: Path, target: Path) -> None:
    """With owner, mode and times: a message's time is its date of arrival."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for path in sorted(source.iterdir()):
            copy_as_it_is(path, target / path.name)
    else:
        shutil.copy2(source, target, follow_symlinks=False)
    copy_rights(source, target)


def copy_rights(source: Path, target: Path) -> None:
    status = source.stat(follow_symlinks=False)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not target.is_symlink():
        shutil.copystat(source, target)


def add(message: Message, live: Path, into: str | None, number: int) -> None:
    """Deliver a message file the Maildir way: written to tmp, then moved. Into a folder of its own it gets a name of its own."""
    folder = live / (f".{into}{message.folder}" if into else message.folder)
    make_folder(folder, live)
    status = message.path.stat()
    unique = f"{int(time.time())}.M{number}P{os.getpid()}.restored,S={status.st_size}" if into else message.unique
    fresh = folder / "tmp" / unique
    shutil.copyfile(message.path, fresh)
    owner = live.stat()
    os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.chmod(0o600)
    os.utime(fresh, ns=(status.st_mtime_ns, status.st_mtime_ns))
    fresh.rename(folder / "cur" / f"{unique}:2,{message.flags}")


def make_folder(folder: Path, live: Path) -> None:
    """A Maildir++ folder, owned as the mailbox, and subscribed so that clients show it."""
    if (folder / "cur").is_dir():
        return
    owner = live.stat()
    for path in (folder, *(folder / part for part in ("cur", "new", "tmp"))):
        path.mkdir(mode=0o700, exist_ok=True)
        os.chown(path, owner.st_uid, owner.st_gid)
    marker = folder / "maildirfolder"
    marker.touch(mode=0o600)
    os.chown(marker, owner.st_uid, owner.st_gid)
    listed = live / "subscriptions"
    old = listed.read_text("utf-8") if listed.exists() else "V\t2\n\n"
    name = folder.name.removeprefix(".").replace(".", "\t" if old.startswith("V\t") else ".")
    if name not in old.splitlines():
        fresh = live / "subscriptions.restored"
        fresh.write_text(f"{old}{name}\n", encoding="utf-8")
        os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.rename(listed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", required=True, help="host name of the snapshots: the backup job's name")
    parser.add_argument("--root", type=Path, default=SOURCE_ROOT, help="where the sources are mounted, as when they were saved")
    parser.add_argument("--source", action="append", required=True)
    parser.add_argument("--maildirs", help="the source that holds Maildirs")
    parser.add_argument("--running", required=True, help="host:port that answers while the server runs")
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
    if options.into is not None and (options.replace or not re.fullmatch(r"[\w+ -]+(\.[\w+ -]+)*", options.into)):
        parser.error("--into: a folder's name such as Restored, and not with --replace")
    if options.replace and options.what != "mailbox":
        parser.error("--replace belongs to --what mailbox")
    return options


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, terminate_cleanly)
    try:
        restic = Restic(options.restic, options.repository, options.key_file, options.scratch, host=options.host, root=options.root)
        if options.what == "list":
            show(restic)
            return 0
        snapshot = choose(restic, options.at)
        print(f"snapshot {snapshot.id[:8]} of {stamp(snapshot.time)}")
        (whole if options.what == "whole" else mailbox)(restic, snapshot, options)
    except ProblemError as error:
        print(f"restore: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(options.scratch / "restored", ignore_errors=True)
    print("done" if options.go else "dry run: nothing was changed; with --go it happens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
