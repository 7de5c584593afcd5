"""Restores the newest good snapshot to a scratch volume and proves that it is mail: counts it, and reads it with Dovecot.

It streams the snapshot out of the repository (`restic dump`), because `restic restore` needs 2 KB of memory for each file.
Every file of restic's own list has to come back in its size. Then Dovecot's `imap` opens each folder as a client would see it:
it has to show exactly the messages of that list, and those that are fetched (the first, the last, the newest of the manifest,
and some at random) have to be mail. It runs before any login, so no password is needed, and as a user who can do nothing else.
Ends with 0 when all of that held and every message of the manifest is there, else with 1.
"""

import argparse
import imaplib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any

from common import Metrics, ProblemError, push, reason, terminate_cleanly
from repository import SOURCE_ROOT, Restic, Snapshot, stamp

SUCCESS = "Whether the last drill restored everything and Dovecot could read it"
SAMPLE = 10  # messages that are fetched from each folder at random
PART = 65536  # bytes of a message that are fetched, whatever its size

MAILBOX = {
    "2.3": "mail_location = maildir:{scratch}/box:INDEX=MEMORY\n",
    # It drops every variable of the environment that is not named.
    "2.4": """\
mail_driver = maildir
mail_path = {scratch}/box
mail_index_path = MEMORY
import_environment {{
  USER = drill
  HOME = {scratch}
}}
""",
}
FIRST_LINES = {"2.3": "", "2.4": "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"}
DOVECOT = """\
log_path = /dev/stderr
base_dir = {scratch}/dovecot
mail_uid = {uid}
mail_gid = {uid}
first_valid_uid = 1
service stats {{
  unix_listener stats-writer {{
    mode = 0
  }}
}}
"""
TAKE_OVER = "import os,sys; os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


@dataclass
class Listed:
    """What a snapshot holds by restic's list: files by source, and messages by mailbox (<domain>/<user>) and folder on disk."""

    files: Counter[str] = field(default_factory=Counter)
    boxes: dict[str, Counter[str]] = field(default_factory=dict)


def unpack(restic: Restic, snapshot: Snapshot, target: Path) -> None:
    """Every file of a snapshot with its owner, mode and time, below `target`. One at a time: memory does not grow with them."""
    with restic.dump(snapshot.id, str(restic.root)) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # pyright: ignore[reportAttributeAccessIssue] - it would remember each
                    path = target / member.name.lstrip("/")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if member.isdir():
                        path.mkdir(exist_ok=True)
                    elif member.issym():
                        path.symlink_to(member.linkname)
                        continue
                    elif content := archive.extractfile(member):
                        with path.open("wb") as file:
                            shutil.copyfileobj(content, file)
                    else:
                        continue  # a socket or a pipe of a daemon
                    os.chown(path, member.uid, member.gid)
                    path.chmod(member.mode & 0o7777)
                    os.utime(path, (member.mtime, member.mtime))
        except tarfile.TarError as error:
            stream.read()  # if restic ended early, that is the reason
            raise ProblemError(f"the archive that restic writes is damaged: {error}") from None


def remove(folder: Path) -> None:
    subprocess.run(["rm", "-rf", str(folder)], check=False)  # Python's own holds the names of a whole folder in memory


def read_list(restic: Restic, snapshot: Snapshot, restored: Path, maildirs: str) -> Listed:
    """Read restic's list, and hold the restored files against it: the same number, and each in its size."""
    found, wrong, example = Listed(), 0, ""
    for node in restic.nodes(snapshot.id):
        if not node.path.startswith(f"{restic.root}/"):
            continue
        parts = node.path.removeprefix(f"{restic.root}/").split("/")
        place = {"file": parts[-2:-1], "dir": parts[-1:]}.get(node.kind)
        if parts[0] == maildirs and len(parts) > 3 and place in (["cur"], ["new"]) and not parts[-1].startswith("."):
            message = node.kind == "file"
            found.boxes.setdefault("/".join(parts[1:3]), Counter())["/".join(parts[3 : -2 if message else -1])] += message
        if node.kind == "file":
            found.files[parts[0]] += 1
            # A name that is not UTF-8 is not in the list as it is; such a file is only counted.
            if "\ufffd" not in node.path and _size(restored.joinpath(*parts)) != node.size:
                wrong, example = wrong + 1, node.path
    if wrong:
        raise ProblemError(f"{wrong} files are not as in the snapshot's list, such as {example!r}")
    for source, count in found.files.items():
        if (there := _count(restored / source)) != count:
            raise ProblemError(f"source {source}: {there} of the {count} files in the snapshot's list came back")
    return found


def _size(path: Path) -> int | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_size if S_ISREG(status.st_mode) else None


def _count(folder: Path) -> int:
    """Regular files below a folder."""
    total, waiting = 0, [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                total += entry.is_file(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return total


def compare(manifest: dict[str, Any], listed: Listed, snapshot: Snapshot) -> None:
    """Raise for anything that the manifest has and the snapshot has not, but for what was deleted while the backup ran."""
    problems = []
    if not manifest["mailboxes"]:
        problems.append("the manifest knows no mailbox")
    for address, box in manifest["mailboxes"].items():
        user, _, domain = address.rpartition("@")
        count = sum(listed.boxes.get(f"{domain}/{user}", Counter()).values())
        if count < box["messages"] - snapshot.gone:
            problems.append(f"{address} has {count} of {box['messages']} messages")
    for name, source in manifest["sources"].items():
        if listed.files[name] < source["files"] - snapshot.gone:
            problems.append(f"source {name} has {listed.files[name]} of {source['files']} files")
    if problems:
        raise ProblemError("; ".join(problems))


class Reader:
    """Dovecot's imap process on one mailbox, as a user who owns nothing but the mail."""

    def __init__(self, options: argparse.Namespace, maildir: Path, address: str) -> None:
        self.address, self._scratch = address, options.scratch
        self._errors = options.scratch / "dovecot.log"
        self._errors.write_text("", encoding="utf-8")
        self._errors.chmod(0o666)  # Dovecot opens it again, as the mail's user
        box = options.scratch / "box"  # a name without anything that the configuration would take for its own syntax
        box.unlink(missing_ok=True)
        box.symlink_to(maildir)
        uid = options.uid or os.getuid()
        config = options.scratch / "dovecot.conf"
        text = FIRST_LINES[options.dovecot] + MAILBOX[options.dovecot] + DOVECOT
        config.write_text(text.format(scratch=options.scratch, uid=uid), encoding="utf-8")
        command = ["env", "USER=drill", f"HOME={options.scratch}", options.imap, "-c", str(config)]
        if os.getuid() != uid:
            command = [sys.executable, "-c", TAKE_OVER, str(uid), "/usr/bin/env", *command[1:]]
        self.imap = imaplib.IMAP4_stream(f"{shlex.join(command)} 2>>{shlex.quote(str(self._errors))}")

    def folders(self) -> set[str]:
        kind, rows = self.imap.list()
        if kind != "OK":
            raise ProblemError(f"{self.address}: Dovecot lists no folders")
        texts = [row.decode("utf-8", "replace") for row in rows if isinstance(row, bytes)]
        return {text.rpartition(' "." ')[2].strip('"') for text in texts if "\\Noselect" not in text.partition(")")[0]}

    def open(self, folder: str) -> int:
        kind, data = self.imap.select(f'"{folder}"', readonly=True)
        if kind != "OK":
            raise ProblemError(f"{self.address}: Dovecot cannot open folder {folder}")
        return int(data[0] or 0)

    def sample(self, folder: str, count: int) -> None:
        """Fetch the first message of the open folder, the last, and some between them."""
        if not count:
            return
        numbers = {1, count, *random.sample(range(1, count + 1), min(SAMPLE, count))}
        _, rows = self.imap.fetch(",".join(map(str, sorted(numbers))), f"(BODY.PEEK[]<0.{PART}>)")
        texts = [row[1] for row in rows if isinstance(row, tuple)]
        # The first line of a message is a header field (RFC 5322, 2.2). A client may store one that is not.
        mail = sum(re.match(rb"[!-9;-~]+[ \t]*:", text) is not None for text in texts)
        if len(texts) < len(numbers) or mail < max(1, len(numbers) - 1):
            raise ProblemError(f"{self.address}: of {len(numbers)} messages that were fetched from folder {folder}, {mail} are mail")

    def newest(self, folder: str, newest: dict[str, Any]) -> bool:
        """Whether the newest message of the manifest is in the open folder; True where it cannot be searched for."""
        wanted = newest["message_id"]
        if not wanted or len(wanted) > 500 or not re.fullmatch("[!-~]+", wanted):
            print(f"{self.address}: the Message-ID of its newest message cannot be searched for; the mailbox is counted and sampled")
            return True
        quoted = wanted.replace("\\", "\\\\").replace('"', '\\"')
        day = imaplib.Time2Internaldate(newest["time"] - 86400)[1:12].strip()
        kind, data = self.imap.uid("SEARCH", f'SINCE {day} HEADER Message-ID "{quoted}"')
        uids = (data[0] or b"").split() if kind == "OK" else []
        if not uids:
            return False
        _, rows = self.imap.uid("FETCH", uids[0].decode(), f"(BODY.PEEK[]<0.{PART}>)")
        size = next((len(row[1]) for row in rows if isinstance(row, tuple)), 0)
        print(f"{self.address}: fetched its newest message, {size} bytes of it")
        return size > 0

    def must_be_content(self) -> None:
        words = self._errors.read_text("utf-8", "replace")
        if bad := [line for line in words.splitlines() if re.search(r"\b(Error|Fatal|Panic): ", line)]:
            raise ProblemError(f"{self.address}: Dovecot complains: {bad[0][:300]}")


def searchable(name: str) -> bool:
    """Whether a folder's name on disk, without its leading dot, is one that a client could have given it and that IMAP can quote."""
    return (
        re.fullmatch(r"[ !#-\[\]-~]+", name) is not None
        and re.search(r"&(?![A-Za-z0-9+,]*-)", name) is None  # modified UTF-7 (RFC 3501, 5.1.3)
        and not re.search(r"^\.|\.\.|\.$", name)
        and name.partition(".")[0].upper() != "INBOX"
    )


def read_mailbox(options: argparse.Namespace, maildir: Path, address: str, listed: Counter[str], newest: dict[str, Any] | None) -> int:
    """Count a mailbox's messages folder by folder, sample them, and find its newest one. Returns the count."""
    wanted: dict[str, int] = {"INBOX": listed.get("", 0)}
    names = {"": "INBOX"}
    for number, folder in enumerate(sorted(set(listed) - {""})):
        name = folder.removeprefix(".")
        on_disk = next((path for path in maildir.iterdir() if os.fsencode(path.name).decode("utf-8", "replace") == folder), None)
        if on_disk is None or not folder.startswith("."):
            print(f"{address}: {folder!r} has {listed[folder]} messages that are in the backup, but Dovecot does not show such a folder")
            continue
        if not searchable(name):
            name = f"drill-{number}"
            print(f"{address}: folder {folder!r} is read as {name}, because no client can have made its name")
            on_disk.rename(maildir / f".{name}")
        wanted[name], names[folder] = listed[folder], name
    for path in maildir.iterdir():
        if path.is_symlink() and path.name.startswith("."):
            print(f"{address}: {path.name!r} is a symbolic link; what it points to was never saved")
            path.unlink()
    reader = Reader(options, maildir, address)
    try:
        total = read_folders(reader, wanted, names, newest)
    except imaplib.IMAP4.error as error:
        reader.must_be_content()
        raise ProblemError(f"{address}: Dovecot cannot read the mailbox ({type(error).__name__})") from None
    reader.imap.shutdown()
    reader.must_be_content()
    return total


def read_folders(reader: Reader, wanted: dict[str, int], names: dict[str, str], newest: dict[str, Any] | None) -> int:
    """`wanted` are the messages of each folder by its name, `names` these by the folders' names on disk."""
    total, address = 0, reader.address
    shown = reader.folders()
    if missing := sorted(wanted.keys() - shown):
        raise ProblemError(f"{address}: Dovecot does not show folder {missing[0]}")
    for name in sorted(shown):
        count = reader.open(name)
        if count != wanted.get(name, 0):
            raise ProblemError(f"{address}: Dovecot shows {count} of {wanted.get(name, 0)} restored messages in folder {name}")
        reader.sample(name, count)
        if newest and names.get(newest["folder"]) == name and not reader.newest(name, newest):
            raise ProblemError(f"{address}: Dovecot does not find the newest message of the manifest")
        total += count
    return total


def drill(options: argparse.Namespace, metrics: Metrics) -> int:
    """Messages that Dovecot showed."""
    restic = Restic(options.restic, options.repository, options.key_file, options.scratch, host=options.host, root=options.root)
    snapshot = restic.good()
    if snapshot is None:
        raise ProblemError("the repository has no good snapshot")
    metrics.set("mail_restore_snapshot_timestamp", snapshot.time, "When the snapshot that the last drill restored was made")
    if options.max_age and time.time() - snapshot.time > options.max_age:
        raise ProblemError(f"the newest good snapshot is of {stamp(snapshot.time)}; the backup has not succeeded since")
    target = options.scratch / "restored"
    remove(target)
    unpack(restic, snapshot, target)
    print(f"snapshot {snapshot.id[:8]} is restored")
    root = target / str(options.root).lstrip("/")
    for folder in (root, *root.parents[: len(options.root.parts) - 1]):
        folder.chmod(0o755)  # the mail's own user must get through
    manifest = restic.manifest(snapshot)
    listed = read_list(restic, snapshot, root, options.maildirs)
    compare(manifest, listed, snapshot)
    total = 0
    for box in sorted(listed.boxes):
        domain, _, user = box.partition("/")
        known = manifest["mailboxes"].get(f"{user}@{domain}")
        total += read_mailbox(options, root / options.maildirs / box, f"{user}@{domain}", listed.boxes[box], known and known["newest"])
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="group in the Pushgateway")
    parser.add_argument("--host", required=True, help="host name of the snapshots: the backup job's name")
    parser.add_argument("--root", type=Path, default=SOURCE_ROOT, help="where the sources were when they were saved")
    parser.add_argument("--maildirs", required=True, help="the source that holds Maildirs")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--restic", default="restic")
    parser.add_argument("--dovecot", choices=MAILBOX, default="2.3", help="its version, which decides the syntax")
    parser.add_argument("--imap", default="/usr/lib/dovecot/imap")
    parser.add_argument("--uid", type=int, help="user and group that own the mail; null: this process's own")
    parser.add_argument("--scratch", type=Path, required=True, help="a volume of its own: what is in `restored` there is deleted")
    parser.add_argument("--max-age", type=int, help="seconds; an older snapshot is a failure, because the backup has not succeeded since")
    parser.add_argument("--pushgateway")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, terminate_cleanly)

    metrics, started, code = Metrics(), time.monotonic(), 0
    try:
        total = drill(options, metrics)
    except BaseException as error:  # noqa: BLE001 - a deadline or a drain too: whatever it is, the last drill's success must not remain
        print(f"restore drill failed: {reason(error)}", file=sys.stderr)
        metrics.set("mail_restore_success", 0, SUCCESS)
        code = 1
    else:
        seconds = time.monotonic() - started
        metrics.set("mail_restore_success", 1, SUCCESS)
        metrics.set("mail_restore_last_success_timestamp", time.time(), "When the last drill succeeded")
        metrics.set("mail_restore_messages", total, "Messages that Dovecot showed in the restored mailboxes")
        metrics.set("mail_restore_seconds", seconds, "How long restore and proof took: what a real one would take, and a little more")
        print(f"{total} messages restored and shown by Dovecot in {seconds:.1f} s")
    finally:
        remove(options.scratch / "restored")
    return 1 if push(options.pushgateway, options.job, metrics) is False else code


if __name__ == "__main__":
    sys.exit(main())
