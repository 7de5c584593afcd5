"""Copies an SQLite database while it is in use: what a backup reads file by file may be half of a change.

The copy is checked, and gets owner, mode and time of the original, so that a restored one can be used as it is.
"""

import argparse
import os
import shutil
import sqlite3
import sys
from pathlib import Path

WAIT_SECONDS = 60.0  # for a writer that has the file locked


class DatabaseError(Exception):
    """The copy was not made; the text says why."""


def copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise DatabaseError(f"{source} does not exist")
    target.unlink(missing_ok=True)
    try:
        live = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS)
        made = sqlite3.connect(target)
        try:
            live.backup(made)
            ((verdict, *_), *_) = made.execute("PRAGMA quick_check")
        finally:
            made.close()
            live.close()
    except sqlite3.Error as error:
        target.unlink(missing_ok=True)
        raise DatabaseError(f"{source}: {error}") from None
    if verdict != "ok":
        target.unlink()
        raise DatabaseError(f"{source}: is damaged: {verdict}")
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    shutil.copystat(source, target)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    try:
        copy(options.source, options.target)
    except DatabaseError as error:
        print(f"database: {error}", file=sys.stderr)
        return 1
    print(f"database: {options.source} copied, {options.target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
