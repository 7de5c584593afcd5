"""What the sources hold, counted by a walk of its own before anything is left out of a backup.

It knows nothing of the backup's exclusions. What it demands is: every message, every folder of messages, and every other file
but Dovecot's indexes and compiled Sieve scripts, which are rebuilt, and Postfix's queue, which would be sent twice.
"""

import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

from common import ProblemError
from repository import ASIDE, QUEUE

HEADER_BYTES = 65536  # of a message that are looked at, whatever its size; Postfix takes 102,400 (header_size_limit), mail has 5,000
SMALL = 20  # of so few messages or files most may go on any day; that all of them go is never accepted in silence
FEW_MISMATCHES = 3


class Keys:
    """A set of names as 64-bit hashes: 9 MB for a million of them, where a set of paths takes 200."""

    def __init__(self) -> None:
        self._parts = [array("Q") for _ in range(256)]  # sorted one by one, so that sorting needs little memory too

    def add(self, name: str) -> None:
        value = hash(name) & 0xFFFFFFFFFFFFFFFF
        self._parts[value >> 56].append(value)

    def freeze(self) -> "Keys":
        """Sort, after the last `add` and before the first `in`."""
        for number, part in enumerate(self._parts):
            self._parts[number] = array("Q", sorted(part))
        return self

    def __contains__(self, name: str) -> bool:
        return self._has(hash(name) & 0xFFFFFFFFFFFFFFFF)

    def _has(self, value: int) -> bool:
        part = self._parts[value >> 56]
        index = bisect_left(part, value)
        return index < len(part) and part[index] == value

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def missing_in(self, other: "Keys") -> int:
        """How many of these the other has not."""
        return sum(not other._has(value) for part in self._parts for value in part)


@dataclass
class Survey:
    """A manifest to be saved and compared, the keys of all that has to be saved, and what a reader of the log should know."""

    manifest: dict[str, Any]
    keys: Keys
    links: list[str] = field(default_factory=list)  # symbolic links to folders: saved as links, without what they point to
    aside: int = 0  # messages in folders that a restore moved aside; they are not saved


def key_of(path: str) -> str:
    """What stays of a file's path when its flags change: a message keeps its unique name, and moves from new to cur (maildir).

    Bytes that are not UTF-8 become U+FFFD as in restic's JSON, but one for several, because Go and Python count them differently.
    """
    path = re.sub("\ufffd+", "\ufffd", os.fsencode(path).decode("utf-8", "replace"))
    folder, _, name = path.rpartition("/")
    if folder.endswith(("/cur", "/new")):
        return f"{folder[:-4]}/*/{name.partition(':')[0]}"
    return path


def survey(root: Path, names: list[str], maildirs: str | None, seen: Callable[[str, str, float], None] = lambda *_: None) -> Survey:
    """Walk the sources. `maildirs` names the one that holds Maildirs as <domain>/<user>; its messages are counted by mailbox.

    `seen(key, path, modified)` is called for each file and each folder of messages that has to be saved.
    """
    found = Survey({"sources": {}, "mailboxes": {}}, Keys())
    boxes: dict[str, dict[str, Any]] = found.manifest["mailboxes"]
    for name in names:
        top = root / name
        if not top.is_dir():
            raise ProblemError(f"source {name}: {top} is missing")
        files = total = 0
        queue = QUEUE.parts[1] if name == QUEUE.parts[0] else None
        for entry, status in _walk(str(top)):
            parts = entry.path[len(str(top)) + 1 :].split("/")
            if parts[0].startswith(ASIDE):
                found.aside += name == maildirs and is_message(parts)
                continue
            if entry.is_symlink():
                if name == maildirs and entry.is_dir():
                    found.links.append(entry.path)
                continue
            if entry.is_dir(follow_symlinks=False):
                if name == maildirs and parts[-1] == "cur":
                    found.keys.add(f"{key_of(entry.path)}/")
                    seen(f"{key_of(entry.path)}/", entry.path, status.st_mtime)
                continue
            if parts[0] == queue or not _wanted(parts, name == maildirs):
                continue
            key = key_of(entry.path)
            found.keys.add(key)
            seen(key, entry.path, status.st_mtime)
            files += 1
            total += status.st_size
            if name == maildirs and is_message(parts):
                _count(boxes.setdefault(f"{parts[1]}@{parts[0]}", _empty()), entry.path, status)
        found.manifest["sources"][name] = {"files": files, "bytes": total}
    for box in boxes.values():
        path = Path(box["newest"].pop("path"))
        box["newest"] |= {"message_id": message_id(path), "folder": path.parent.parent.name if path.parent.parent.name[:1] == "." else ""}
    found.keys.freeze()
    return found


def is_message(parts: list[str]) -> bool:
    """Whether a path, in parts below the source of Maildirs, is a message: <domain>/<user>/[<folder>/]cur|new/<file>."""
    return len(parts) >= 4 and parts[-2] in {"cur", "new"} and not parts[-1].startswith(".")


def _wanted(parts: list[str], maildirs: bool) -> bool:
    if not maildirs or (len(parts) >= 4 and parts[-2] in {"cur", "new"}):
        return True
    if "home" in parts[2:-1]:
        return not parts[-1].endswith(".svbin")
    return not parts[-1].startswith("dovecot.") and parts[-1] != "dovecot-uidlist.lock"


def _empty() -> dict[str, Any]:
    return {"messages": 0, "bytes": 0, "mismatched": 0, "newest": {"time": 0.0, "path": ""}}


def _count(box: dict[str, Any], path: str, status: os.stat_result) -> None:
    box["messages"] += 1
    box["bytes"] += status.st_size
    told = re.search(r",S=([0-9]+)", path.rpartition("/")[2])
    # A message file never changes once it is there, so its size is what Dovecot wrote into its name.
    box["mismatched"] += status.st_size == 0 or (told is not None and int(told[1]) != status.st_size)
    if status.st_mtime >= box["newest"]["time"]:
        box["newest"] = {"time": status.st_mtime, "path": path}


def _walk(folder: str) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """Everything below a folder, with its status; what vanishes meanwhile is skipped, what cannot be read is an error."""
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    try:
                        yield entry, entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ProblemError(f"cannot read {error.filename}: {error.strerror}") from None


def message_id(path: Path) -> str | None:
    """The Message-ID of a message file; None where it has none among its first headers, or where the file is gone."""
    try:
        with path.open("rb") as file:
            start = file.read(HEADER_BYTES)
    except OSError:
        return None
    found = BytesHeaderParser().parsebytes(re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0] + b"\n\n").get("Message-ID")
    return " ".join(str(found).split()) if found else None


def falls(before: dict[str, Any], now: dict[str, Any], max_fall: int) -> Iterator[str]:
    """What is suspicious about the sources since an earlier manifest, one sentence each.

    That is every mailbox, source and table that lost everything, or more than `max_fall` percent of its messages, files, bytes or
    rows; and every mailbox with messages that are not as long as they were when they arrived.
    """
    for kind, thing, label in (("mailboxes", "messages", "{}"), ("sources", "files", "source {}")):
        for name, earlier in before[kind].items():
            current = now[kind].get(name, {thing: 0, "bytes": 0})
            for what in (thing, "bytes"):
                count = current[what]
                if (earlier[thing] > SMALL or count == 0 < earlier[what]) and count * 100 < earlier[what] * (100 - max_fall):
                    yield f"{label.format(name)} fell from {earlier[what]} to {count} {what}"
    for table, earlier in before.get("rows", {}).items():  # of a database: none in a snapshot of an older program
        count = now["rows"].get(table, 0)
        if (earlier > SMALL or count == 0) and count * 100 < earlier * (100 - max_fall):
            yield f"table {table} fell from {earlier} to {count} rows"
    for address, box in now["mailboxes"].items():
        fresh = box["mismatched"] - before["mailboxes"].get(address, {"mismatched": 0})["mismatched"]
        if fresh > FEW_MISMATCHES or fresh * 2 > box["messages"]:
            yield f"{address} has {fresh} messages whose files are empty or not of the size in their names (S=)"
