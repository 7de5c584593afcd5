"""Copies an SQLite database while it is in use: what a backup reads file by file may be half of a change.

The copy is checked, and gets owner, mode and time of the original, so that a restored one can be used as it is. How it went goes
into a file for the backup, which reports it: so the end is 0 either way.
"""

import argparse
import os
import shutil
import sqlite3
import sys
from pathlib import Path

TABLES = ("users", "identities", "contacts")  # whose rows are counted
WAIT_SECONDS = 60.0  # for a writer that has the file locked


class DatabaseError(Exception):
    """The copy was not made; the text says why."""


def copy(source: Path, target: Path) -> dict[str, int]:
    """Rows of the tables in the copy."""
    if not source.is_file():
        raise DatabaseError(f"{source} does not exist")
    target.unlink(missing_ok=True)
    target.parent.mkdir(exist_ok=True)
    try:
        live = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS)
        made = sqlite3.connect(target)
        try:
            live.backup(made)
            ((verdict, *_), *_) = made.execute("PRAGMA quick_check")
            rows = {table: made.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in TABLES}  # noqa: S608 - ours
        finally:
            made.close()
            live.close()
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise DatabaseError(f"{source}: {error}") from None
    if verdict != "ok":
        target.unlink()
        raise DatabaseError(f"{source}: is damaged: {verdict}")
    for original, made in ((source, target), (source.parent, target.parent)):
        status = original.stat()
        os.chown(made, status.st_uid, status.st_gid)
        shutil.copystat(original, made)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help="file in a folder of its own")
    parser.add_argument("outcome", type=Path)
    options = parser.parse_args()
    try:
        rows = copy(options.source, options.target)
    except DatabaseError as error:
        print(f"database: {error}", file=sys.stderr)
        options.outcome.write_text(f"error {error}\n", encoding="utf-8")
        return 0
    options.outcome.write_text("".join(f"{table} {count}\n" for table, count in rows.items()), encoding="utf-8")
    print(f"database: {options.source} copied, {options.target.stat().st_size} bytes, {rows}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
