"""The webmail's database in its backup: real servers, dumped, tried, saved, and loaded again."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.jobs.world import SCRIPTS, World
from tools.lab.hosts import wait_for

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/none"))
PATH = f"{POSTGRES}:{os.environ['PATH']}"
SCHEMAS = Path("/usr/share/roundcube/SQL")
SECRET = "p@ss/w:rd'\\%$x \"end"  # what a URL, an option file and a shell each read as syntax
JOB = "roundcube-backup"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the servers run as another user"),
    pytest.mark.skipif(not (shutil.which("mariadbd") and POSTGRES.is_dir() and SCHEMAS.is_dir()), reason="needs tools/packages.sh"),
]


class Server:
    """A database server on loopback with Roundcube's own tables."""

    def __init__(self, kind: str) -> None:
        self.kind, self.schema = kind, SCHEMAS / f"{'postgres' if kind == 'pgsql' else kind}.initial.sql"
        self.folder = Path(tempfile.mkdtemp(prefix="database-"))
        shutil.chown(self.folder, 65534, 65534)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def __enter__(self) -> "Server":
        data = self.folder / "data"
        if self.kind == "mysql":
            self._run(
                "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"
            )
            place = [f"--datadir={data}", f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid", f"--tmpdir={self.folder}"]
            command = ["mariadbd", "--no-defaults", *place, f"--port={self.port}", "--bind-address=127.0.0.1"]
        else:
            self._run("initdb", f"--pgdata={data}", "--username=root", "--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8")
            command = ["postgres", "-D", str(data), "-k", str(self.folder), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen([*NOBODY, *command], env={"PATH": PATH}, stdout=log, stderr=log)
        wait_for("the server", lambda: self._admin("SELECT 1", base=None, check=False).returncode == 0, 60)
        literal = SECRET.replace("\\", "\\\\" if self.kind == "mysql" else "\\").replace("'", "''")
        if self.kind == "mysql":
            self._admin(f"CREATE DATABASE mail; CREATE USER mail@'%' IDENTIFIED BY '{literal}'; GRANT ALL ON mail.* TO mail@'%'", base=None)
        else:
            self._admin(f"CREATE ROLE mail LOGIN PASSWORD '{literal}'", base=None)
            self._admin("CREATE DATABASE mail OWNER mail", base=None)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)

    def _run(self, *command: str) -> None:
        subprocess.run([*NOBODY, *command], env={"PATH": PATH}, check=True, capture_output=True, timeout=120)

    def _admin(self, statement: str, base: str | None = "mail", *, check: bool = True) -> subprocess.CompletedProcess[str]:
        if self.kind == "mysql":
            command = ["mariadb", "--no-defaults", f"--socket={self.folder}/socket", "-uroot", "-N", *([base] if base else [])]
        else:
            user = "mail" if base else "root"
            command = [
                "psql",
                "-XqAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                str(self.folder),
                "-p",
                str(self.port),
                "-U",
                user,
                base or "postgres",
            ]
        return subprocess.run(command, env={"PATH": PATH}, input=statement, text=True, capture_output=True, check=check, timeout=60)

    def sql(self, statement: str) -> str:
        return self._admin(statement).stdout.strip()

    def fill(self, users: int) -> None:
        self._admin(self.schema.read_text("utf-8"))
        for number in range(users):
            self.sql(f"INSERT INTO users (username, mail_host, created) VALUES ('user{number}@example.org', 'mail', '2026-11-01 00:00:00')")
        self.sql(
            "INSERT INTO session (sess_id, ip, vars, changed) VALUES ('s', '192.0.2.1', 'a session of someone', '2026-11-01 00:00:00')"
        )

    def empty(self) -> None:
        """As the runbook has it, by the database's administrator."""
        self._admin("DROP DATABASE mail", base=None)
        self._admin("CREATE DATABASE mail" + (" OWNER mail" if self.kind == "pgsql" else ""), base=None)


class Copies:
    """The two containers of the backup job, with the folders that they share."""

    def __init__(self, server: Server, world: World) -> None:
        self.server, self.world = server, world
        # Where another user may go, unlike pytest's folders.
        self.copy, self.secret = world.scratch / "copy", world.scratch / "password"
        world.root = self.copy
        (self.copy / "manifest").mkdir(parents=True)
        self.copy.chmod(0o777)
        self.secret.write_text(f"{SECRET}\n", encoding="utf-8")
        self.secret.chmod(0o444)
        self.path = PATH

    def dump(self, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory(prefix="trial-") as scratch:
            shutil.chown(scratch, 65534, 65534)
            place = [self.server.kind, "127.0.0.1", str(self.server.port), "mail", "mail"]
            process = subprocess.Popen(
                [*NOBODY, "sh", str(SCRIPTS / "dump.sh"), verb, *place, *more],
                env={"PATH": self.path, "COPY_DIR": str(self.copy), "SCRATCH_DIR": scratch, "PASSWORD_FILE": str(self.secret)},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                output, errors = process.communicate(timeout=180)
                done = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
            finally:
                with contextlib.suppress(ProcessLookupError):  # as a pod's end does: the server that the dump is tried on, too
                    os.killpg(process.pid, signal.SIGKILL)
        assert SECRET not in done.stdout + done.stderr
        return done

    def backup(self, *more: object) -> subprocess.CompletedProcess[str]:
        assert self.dump("save").returncode == 0
        first = () if self.world.repository.exists() else ("--new-repository",)
        place = ["--job", JOB, "--root", self.world.root, "--source", "database", "--prepared", self.copy / "outcome"]
        limits = ["--max-fall", 50, "--keep-daily", 7, "--keep-weekly", 8, "--verify-parts", 1, "--pushgateway", self.world.gateway.url]
        return self.world.run("backup.py", *place, *self.world.where(), *limits, *first, *more)

    def succeeded(self) -> float:
        return self.world.gateway.value(JOB, "backup_success")

    def refused(self, words: str) -> None:
        """The run fails in these words, the Pushgateway knows, and the snapshot before it stays the only one."""
        before = self.world.snapshots()
        failed = self.backup()
        assert failed.returncode == 1
        assert words in failed.stderr
        assert self.succeeded() == 0
        assert self.world.snapshots() == before

    @contextlib.contextmanager
    def dumper(self, script: str) -> Iterator[None]:
        """Another program in the place of the dump's; `$real` is the real one."""
        name = "mariadb-dump" if self.server.kind == "mysql" else "pg_dump"
        folder = self.server.folder / "bin"
        folder.mkdir(exist_ok=True)
        real = shutil.which(name, path=PATH)
        (folder / name).write_text(f"#!/bin/bash\nreal={real}\n{script}\n")
        (folder / name).chmod(0o755)
        self.path = f"{folder}:{PATH}"
        try:
            yield
        finally:
            self.path = PATH


@pytest.fixture(scope="module", params=["mysql", "pgsql"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as server:
        yield server


@pytest.fixture
def copies(server: Server, world: World) -> Copies:
    server.empty()
    server.fill(3)
    return Copies(server, world)


def test_what_was_saved_comes_back_and_nothing_that_is_there_is_overwritten(copies: Copies, server: Server) -> None:
    done = copies.backup()
    assert done.returncode == 0, done.stderr
    assert copies.succeeded() == 1
    assert copies.world.gateway.value(JOB, "backup_rows", table="users") == 3
    dump = copies.copy / "database" / "dump.sql"
    assert "a session of someone" not in dump.read_text("utf-8")

    server.sql("DELETE FROM users WHERE username = 'user1@example.org'")
    shutil.rmtree(dump.parent)
    dump.parent.mkdir(mode=0o750)  # as Kubernetes makes a folder of a volume
    place = ["--host", JOB, "--root", copies.world.root, "--source", "database", "--running", "127.0.0.1:9"]
    restored = copies.world.run("restore.py", *place, *copies.world.where(), "--what", "whole", "--go")
    assert restored.returncode == 0, restored.stderr

    assert "dry run" in copies.dump("load", "--what", "whole").stdout
    refused = copies.dump("load", "--go")
    assert refused.returncode == 1
    assert "holds 2 users" in refused.stderr
    assert server.sql("SELECT COUNT(*) FROM users") == "2"

    server.empty()
    loaded = copies.dump("load", "--what", "whole", "--go")
    assert loaded.returncode == 0, loaded.stderr
    assert server.sql("SELECT username FROM users ORDER BY user_id").split() == [f"user{n}@example.org" for n in range(3)]
    assert server.sql("SELECT COUNT(*) FROM session") == "0"


def test_a_dump_that_failed_fails_the_backup_and_keeps_the_snapshot_before(copies: Copies, server: Server) -> None:
    assert copies.backup().returncode == 0
    half = '"$real" "$@" | head -c 3000'
    if server.kind == "pgsql":
        half = 'for last; do :; done; "$real" "$@"; truncate --size=3000 "${last#--file=}"'
    with copies.dumper(half):
        copies.refused("the dump breaks off")
    with copies.dumper(f"{half}; echo Lost connection >&2; exit 2"):
        copies.refused("Lost connection")
    copies.secret.chmod(0o644)
    copies.secret.write_text("another\n")
    copies.refused("127.0.0.1 does not let mail in")
    copies.secret.write_text(f"{SECRET}\n")
    server.empty()
    copies.refused("the dump has no table users")
    server.fill(0)
    copies.refused("table users fell from 3 to 0 rows")


def test_a_dump_that_does_not_load_is_not_saved(copies: Copies, server: Server) -> None:
    assert copies.backup().returncode == 0
    broken = "s/CREATE TABLE `users`/CREATE TABLE `u sers` oops/" if server.kind == "mysql" else "s/^CREATE TABLE public.users/CREATE oops/"
    if server.kind == "mysql":
        script = f'"$real" "$@" | sed "{broken}"'.replace("`", "\\`")
    else:
        script = f'for last; do :; done; "$real" "$@" && sed -i "{broken}" "${{last#--file=}}"'
    with copies.dumper(script):
        copies.refused("the dump does not load")


def test_a_step_that_was_killed_is_told(copies: Copies) -> None:
    assert copies.backup().returncode == 0
    with copies.dumper("kill -9 $PPID"):
        assert copies.dump("save").returncode != 0
    done = copies.world.run(
        "backup.py", "--job", JOB, "--root", copies.world.root, "--source", "database", "--prepared", copies.copy / "outcome",
        *copies.world.where(), "--max-fall", 50, "--keep-daily", 7, "--keep-weekly", 8, "--verify-parts", 1,
    )  # fmt: skip
    assert "ended without a word" in done.stderr
