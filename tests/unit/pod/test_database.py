"""scripts/pod/database.py: a copy of a database that is being written."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tools.offline.stackfile import ROOT

ROWS = {"users": 2, "identities": 3, "contacts": 0}
SCRIPT = ROOT / "scripts" / "pod" / "database.py"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    path = tmp_path / "live.db"
    with sqlite3.connect(path) as database:
        for table, count in ROWS.items():
            database.execute(f"CREATE TABLE {table} (id INTEGER)")
            database.executemany(f"INSERT INTO {table} VALUES (?)", [(n,) for n in range(count)])
        database.execute("CREATE TABLE pairs (one INTEGER, other INTEGER)")
        database.executemany("INSERT INTO pairs VALUES (?, ?)", [(n, -n) for n in range(5000)])
    path.chmod(0o640)
    return path


def copy(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(source), str(target), str(target.parent.with_name("outcome"))]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows(path: Path) -> list[tuple[int, int]]:
    with sqlite3.connect(path) as database:
        return database.execute("SELECT one, other FROM pairs").fetchall()


def test_an_unfinished_change_is_not_in_the_copy(live: Path, tmp_path: Path) -> None:
    writer = sqlite3.connect(live, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE pairs SET one = one + 1000000")
    done = copy(live, tmp_path / "copy" / "copy.db")
    writer.execute("ROLLBACK")
    writer.close()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outcome").read_text() == "users 2\nidentities 3\ncontacts 0\n"
    assert rows(tmp_path / "copy" / "copy.db") == [(n, -n) for n in range(5000)]


def test_the_copy_belongs_to_whom_the_database_belongs(live: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(live, 33, 33)
    assert copy(live, tmp_path / "copy" / "copy.db").returncode == 0
    before, after = live.stat(), (tmp_path / "copy" / "copy.db").stat()
    assert (before.st_uid, before.st_gid, before.st_mode) == (after.st_uid, after.st_gid, after.st_mode)


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_a_damaged_or_missing_database_is_told_to_the_backup(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "live.db"
    if content:
        path.write_bytes(content)
    failed = copy(path, tmp_path / "copy" / "copy.db")
    assert failed.returncode == 0
    assert failed.stderr.startswith("database: ")
    assert (tmp_path / "outcome").read_text().startswith("error ")
    assert not (tmp_path / "copy" / "copy.db").exists()
