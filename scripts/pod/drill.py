"""Restores the newest good snapshot to a scratch volume and proves that it is mail: counts it, and reads it with Dovecot.

Dovecot's own `imap` opens each mailbox as a client would see it, counts, and fetches the newest message that the manifest knows
by its Message-ID. It runs before any login, so no password is needed, and as a user who can do nothing else.
Ends with 0 when every message of the manifest is there, else with 1.
"""

import argparse
import hashlib
import imaplib
import os
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from common import Metrics, ProblemError, push
from repository import SOURCE_ROOT, Restic, survey, terminate_cleanly

DOVECOT = """\
log_path = /dev/stderr
base_dir = {scratch}/dovecot
mail_location = maildir:{maildir}:INDEX=MEMORY
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


def restore(options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The restored source root, and the manifest that was saved with it."""
    restic = Restic(options.restic, options.repository, options.key_file, options.scratch, host=options.host, root=options.root)
    snapshot = restic.good()
    if snapshot is None:
        raise ProblemError("the repository has no good snapshot")
    target = options.scratch / "restored"
    shutil.rmtree(target, ignore_errors=True)
    restic.run("restore", "--no-lock", snapshot.id, "--target", str(target), "--verify")
    print(f"snapshot {snapshot.id[:8]} is restored")
    root = target / str(options.root).lstrip("/")
    for folder in (root, *root.parents[: len(options.root.parts) - 1]):
        folder.chmod(0o755)  # restic makes them for itself alone; the mail's own user must get through
    return root, restic.manifest(snapshot)


def compare(manifest: dict[str, Any], restored: dict[str, Any]) -> None:
    """Raise for anything that the manifest has and the restored files have not.

    More is no fault: mail arrives while a backup runs. A few less is none either: mail is deleted while it runs.
    """
    problems = []
    if not manifest["mailboxes"]:
        problems.append("the manifest knows no mailbox")
    for address, box in manifest["mailboxes"].items():
        found = restored["mailboxes"].get(address, {"messages": 0})["messages"]
        if not found or found < box["messages"] - max(10, box["messages"] // 100):
            problems.append(f"{address} has {found} of {box['messages']} messages")
    problems += [f"source {name} is missing" for name in manifest["sources"] if name not in restored["sources"]]
    if problems:
        raise ProblemError("; ".join(problems))


def open_mailbox(options: argparse.Namespace, maildir: Path, address: str, wanted: str | None) -> int:
    """Count a mailbox's messages with Dovecot's imap process, and fetch one by its Message-ID. Returns the count."""
    if wanted and not re.fullmatch("[!-~]+", wanted):
        print(f"{address}: the Message-ID of its newest message is none that can be searched for; the mailbox is only counted")
        wanted = None
    uid = options.uid or os.getuid()
    config = options.scratch / "dovecot.conf"
    config.write_text(DOVECOT.format(scratch=options.scratch, maildir=maildir, uid=uid), encoding="utf-8")
    command = ["env", f"USER={address}", f"HOME={options.scratch}", options.imap, "-c", str(config)]
    if os.getuid() != uid:
        command = [sys.executable, "-c", TAKE_OVER, str(uid), "/usr/bin/env", *command[1:]]
    total = found = 0
    with imaplib.IMAP4_stream(shlex.join(command)) as imap:
        for folder in _folders(imap):
            kind, data = imap.select(folder, readonly=True)
            if kind != "OK":
                raise ProblemError(f"{address}: Dovecot cannot open a folder")
            total += int(data[0] or 0)
            if wanted and not found:
                quoted = wanted.replace("\\", "\\\\").replace('"', '\\"')
                uids = (imap.uid("SEARCH", f'HEADER Message-ID "{quoted}"')[1][0] or b"").split()
                if uids:
                    _, parts = imap.uid("FETCH", uids[0].decode(), "(BODY.PEEK[])")
                    body = next(part[1] for part in parts if isinstance(part, tuple))
                    found = len(body)
                    print(f"{address}: fetched its newest message, {found} bytes, sha256 {hashlib.sha256(body).hexdigest()[:16]}")
    if wanted and not found:
        raise ProblemError(f"{address}: Dovecot does not find the newest message of the manifest")
    return total


def _folders(imap: imaplib.IMAP4) -> list[str]:
    kind, rows = imap.list()
    if kind != "OK":
        raise ProblemError("Dovecot lists no folders")
    return [row.decode().split(' "', 1)[1].split('" ', 1)[1] for row in rows if isinstance(row, bytes) and b"\\Noselect" not in row]


def drill(options: argparse.Namespace) -> int:
    """Messages that Dovecot showed, over all mailboxes."""
    root, manifest = restore(options)
    restored = survey(root, list(manifest["sources"]), options.maildirs).manifest
    compare(manifest, restored)
    total = 0
    for address, box in sorted(manifest["mailboxes"].items()):
        user, _, domain = address.rpartition("@")
        shown = open_mailbox(options, root / options.maildirs / domain / user, address, box["newest"]["message_id"])
        if shown != restored["mailboxes"][address]["messages"]:
            raise ProblemError(f"{address}: Dovecot shows {shown} of {restored['mailboxes'][address]['messages']} restored messages")
        total += shown
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="group in the Pushgateway")
    parser.add_argument("--host", required=True, help="host name of the snapshots: the backup job's name")
    parser.add_argument("--root", type=Path, default=SOURCE_ROOT, help="where the sources lay when they were saved")
    parser.add_argument("--maildirs", required=True, help="the source that holds Maildirs")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--restic", default="restic")
    parser.add_argument("--imap", default="/usr/lib/dovecot/imap")
    parser.add_argument("--uid", type=int, help="user and group that own the mail; null: this process's own")
    parser.add_argument("--scratch", type=Path, required=True, help="a volume of its own: whatever is in `restored` there is deleted")
    parser.add_argument("--pushgateway")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, terminate_cleanly)

    metrics, started, code = Metrics(), time.monotonic(), 0
    try:
        total = drill(options)
    except Exception as error:  # noqa: BLE001 - whatever it is, the last drill's success must not stand any longer
        print(f"restore drill failed: {error if isinstance(error, ProblemError) else type(error).__name__}", file=sys.stderr)
        metrics.set("mail_restore_success", 0, "Whether the last drill restored everything and Dovecot could read it")
        code = 1
    else:
        seconds = time.monotonic() - started
        metrics.set("mail_restore_success", 1, "Whether the last drill restored everything and Dovecot could read it")
        metrics.set("mail_restore_last_success_timestamp", time.time(), "When the last drill succeeded")
        metrics.set("mail_restore_messages", total, "Messages that Dovecot showed in the restored mailboxes")
        metrics.set("mail_restore_seconds", seconds, "How long restore and proof took: what a real one would take, and a little more")
        print(f"{total} messages restored and shown by Dovecot in {seconds:.1f} s")
    finally:
        shutil.rmtree(options.scratch / "restored", ignore_errors=True)
    return 1 if push(options.pushgateway, options.job, metrics) is False else code


if __name__ == "__main__":
    sys.exit(main())
