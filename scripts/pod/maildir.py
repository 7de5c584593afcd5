"""Maildir++ on disk, for a restore: messages, folders, subscriptions, and the UIDs that clients remember."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repository import ASIDE

# Where the live list of UIDs is lost, so many are skipped: more than arrive between two backups.
UID_MARGIN = 100_000
UID_LIST = "dovecot-uidlist"


@dataclass(frozen=True, slots=True)
class Message:
    """A message file. `folder` is empty for the inbox, else as on disk, such as `.Sent`."""

    path: str
    folder: str

    @property
    def unique(self) -> str:
        return self.path.rpartition("/")[2].partition(":")[0]

    @property
    def flags(self) -> str:
        """The standard flags but \\Deleted, with which the next EXPUNGE of any client would take the message away.

        Keywords are letters that mean something else in each folder.
        """
        return "".join(sorted(letter for letter in self.path.rpartition("/")[2].partition(":2,")[2] if letter in "DFPRS"))


def messages(maildir: Path) -> Iterator[Message]:
    if not maildir.is_dir():
        return
    folders = (path for path in maildir.iterdir() if path.name.startswith(".") and path.is_dir() and not path.is_symlink())
    for folder in sorted([maildir, *folders]):
        for part in ("new", "cur"):
            if (folder / part).is_dir():
                name = "" if folder == maildir else folder.name
                with os.scandir(folder / part) as entries:
                    yield from (Message(entry.path, name) for entry in entries if entry.is_file(follow_symlinks=False))


def add(message: Message, live: Path, into: str | None, number: int) -> None:
    """Deliver a message file the Maildir way: written to tmp, then moved. Into a folder of its own it gets a name of its own."""
    folder = live / (f".{into}{message.folder}" if into else message.folder)
    make_folder(folder, live)
    status = Path(message.path).stat()
    unique = f"{int(time.time())}.M{number}P{os.getpid()}.restored,S={status.st_size}" if into else message.unique
    fresh = folder / "tmp" / unique
    try:
        shutil.copyfile(message.path, fresh)
        owner = live.stat()
        os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.chmod(0o600)
        os.utime(fresh, ns=(status.st_mtime_ns, status.st_mtime_ns))
        fresh.rename(folder / "cur" / f"{unique}:2,{message.flags}")
    finally:
        fresh.unlink(missing_ok=True)


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
    old = listed.read_bytes() if listed.exists() else b"V\t2\n\n"
    name = os.fsencode(folder.name).removeprefix(b".").replace(b".", b"\t" if old.startswith(b"V\t") else b".")
    if name not in old.split(b"\n"):
        fresh = live / "subscriptions.restored"
        fresh.write_bytes(old + name + b"\n")
        os.chown(fresh, owner.st_uid, owner.st_gid)
        fresh.rename(listed)


def copy_as_it_is(source: Path, target: Path) -> None:
    """With owner, mode and times: a message's time is its date of arrival."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir(exist_ok=True)
        for path in source.iterdir():
            copy_as_it_is(path, target / path.name)
    else:
        shutil.copy2(source, target, follow_symlinks=False)
    copy_rights(source, target)


def copy_rights(source: Path, target: Path) -> None:
    status = source.stat(follow_symlinks=False)
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not target.is_symlink():
        shutil.copystat(source, target)


def raise_next_uids(restored: Path, before: Path | None, source: Path) -> None:
    """See that no UID that was given out since the snapshot is given out again under the same UIDVALIDITY (RFC 9051, 2.3.1.1).

    `before` is where the mail was moved to that was there until now. How far its UIDs had come is known where it has a list of
    the same UIDVALIDITY, and so has everything else that was moved aside in the source: `before` may be what a restore that
    broke off had brought back.
    """
    for folder, below, names in os.walk(restored):
        below[:] = [name for name in below if not name.startswith(ASIDE)]  # stays as it was
        if UID_LIST not in names:
            continue
        path = Path(folder) / UID_LIST
        saved, place = _header(path), path.relative_to(source)
        if saved is None:
            print(f"{path}: not a list of UIDs of Dovecot 2; clients may show old messages for new ones until they read it again")
            continue
        lived = [_header(aside / place) for aside in source.glob(f"{ASIDE}*") if (aside / place.parent).is_dir()]
        numbers = [header[1] for header in lived if header and header[0] == saved[0]]
        known = before is not None and (before / Path(folder).relative_to(restored)).is_dir() and len(numbers) == len(lived)
        _write_next_uid(path, max([saved[1] + (0 if known else UID_MARGIN), *numbers]))


def _header(path: Path) -> tuple[int, int] | None:
    """UIDVALIDITY and next UID: `3 V<number> N<number> …` (doc.dovecot.org, Maildir, "dovecot-uidlist")."""
    try:
        with path.open("rb") as file:
            line = file.readline(4096)
    except OSError:
        return None
    found = re.match(rb"3( [^VN]\S*)* V([0-9]+)( [^VN]\S*)* N([0-9]+)\b", line)
    return (int(found[2]), int(found[4])) if found else None


def _write_next_uid(path: Path, number: int) -> None:
    fresh = path.with_name(f"{UID_LIST}.restored")
    with path.open("rb") as old, fresh.open("wb") as new:
        new.write(re.sub(rb" N[0-9]+\b", b" N%d" % number, old.readline(), count=1))
        shutil.copyfileobj(old, new)
    copy_rights(path, fresh)
    fresh.rename(path)
