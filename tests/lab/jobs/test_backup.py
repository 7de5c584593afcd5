"""Backup, drill and restore with the real restic and Dovecot: what was there comes back, and what is wrong is found."""

import imaplib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.lab.jobs.conftest import SCRIPTS
from tests.lab.jobs.servers import NAME, PASSWORD, VMAIL, dovecot

JOB = "mailserver-backup"
KEY = "a key that no log may show"
ALICE, SPAM = "alice@example.org", "spam@example.org"


class World:
    """Sources below a root, a repository, a Pushgateway; and the jobs on them as their pods call them."""

    def __init__(self, folder: Path, gateway, job):
        self.root, self.repository = folder / "source", folder / "backup" / "restic"
        self.scratch = Path(tempfile.mkdtemp(prefix="scratch-"))  # where the mail's own user may go, unlike pytest's folders
        self.scratch.chmod(0o755)
        self.key = folder / "key"
        self.gateway, self._job = gateway, job
        for path in (self.root / "mail", self.root / "state", self.root / "manifest", self.repository.parent, self.scratch):
            path.mkdir(parents=True, exist_ok=True)
        self.key.write_text(KEY, encoding="utf-8")
        (self.root / "state" / "lib-rspamd").mkdir()
        (self.root / "state" / "lib-rspamd" / "rspamd.rrd").write_text("statistics", encoding="utf-8")

    def arguments(self, *more: object) -> list[object]:
        place = ["--job", JOB, "--root", self.root, "--source", "mail", "--source", "state", "--maildirs", "mail"]
        limits = ["--max-fall", 50, "--keep-daily", 7, "--keep-weekly", 8, "--verify-parts", 1]
        return [*place, *self.where(), *limits, "--pushgateway", self.gateway.url, *more]

    def where(self) -> list[object]:
        return ["--repository", self.repository, "--key-file", self.key, "--scratch", self.scratch]

    def run(self, script: str, *arguments: object):
        done = self._job(script, *arguments)
        assert KEY not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def backup(self, *more: object):
        return self.run("backup.py", *self.arguments(*more))

    def drill(self):
        place = ("--job", "mail-restore-drill", "--host", JOB, "--root", self.root, "--maildirs", "mail", "--uid", VMAIL)
        return self.run("drill.py", *place, *self.where(), "--pushgateway", self.gateway.url)

    def restore(self, *more: object, running: str = "127.0.0.1:9"):
        place = ("--host", JOB, "--root", self.root, "--source", "mail", "--source", "state", "--maildirs", "mail", "--running", running)
        return self.run("restore.py", *place, *self.where(), *more)

    def value(self, metric: str, **labels: str) -> float:
        return self.gateway.value(JOB, metric, **labels)

    def restic(self, *arguments: str) -> str:
        command = ["restic", "--repo", str(self.repository), "--password-file", str(self.key), "--no-cache", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL, timeout=120).stdout

    def earlier(self, days: int) -> None:
        """What is there now, as a good snapshot of an earlier day."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - days * 86400))
        paths = [str(self.root / name) for name in ("mail", "state", "manifest")]
        self.restic("backup", "--host", JOB, "--tag", "good", "--time", stamp, *paths)

    def snapshots(self) -> list[dict]:
        return json.loads(self.restic("snapshots", "--json"))


@pytest.fixture
def world(tmp_path, gateway, job):
    made = World(tmp_path, gateway, job)
    yield made
    shutil.rmtree(made.scratch)


def fill(mail: Path, address: str, count: int, folder: str = "", flags: str = "S", size: int = 400) -> list[Path]:
    """Messages as Dovecot stores them, some of them new, each with a date of arrival of its own."""
    user, _, domain = address.rpartition("@")
    box = mail / domain / user
    place = box / folder if folder else box
    for part in ("cur", "new", "tmp"):
        (place / part).mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        identity = f"{folder}{number}.{user}@{domain}"
        text = f"Message-ID: <{identity}>\nSubject: {number}\n\n{identity}\n" + os.urandom(size // 2).hex()
        name = f"17000{number:05}.M{number}P1{folder.strip('.')}.host,S={len(text)}"  # Dovecot believes the size
        path = place / ("new" if number % 5 == 0 else "cur") / (name if number % 5 == 0 else f"{name}:2,{flags}")
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
        made.append(path)
    subprocess.run(["chown", "-R", f"{VMAIL}:{VMAIL}", str(mail)], check=True)
    return made


def state_of(folder: Path) -> dict[str, tuple]:
    """Content, owner, mode and time of every file."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and ".before-restore-" not in str(path)):
        status = path.stat()
        found[str(path.relative_to(folder))] = (path.read_bytes(), status.st_uid, status.st_mode, int(status.st_mtime))
    return found


def test_the_log_folder_does_not_overwrite_the_mail_though_both_are_called_mail(world):
    """The predecessor named each target by its last path component: /var/log/mail replaced /var/mail, and all metrics were green."""
    fill(world.root / "mail", ALICE, 3)
    logs = world.root / "state" / "log" / "mail"
    logs.mkdir(parents=True)
    (logs / "mail.txt").write_text("connect from", encoding="utf-8")
    assert world.backup().returncode == 0
    paths = set(world.restic("ls", "latest").splitlines())
    assert f"{logs}/mail.txt" in paths
    assert {str(path) for path in (world.root / "mail").rglob("*") if path.is_file()} <= paths


def test_two_sources_of_one_name_are_refused(world):
    fill(world.root / "mail", ALICE, 3)
    done = world.backup("--source", "mail")
    assert (done.returncode, "a name of its own" in done.stderr) == (1, True)


def test_a_source_that_is_missing_fails_and_saves_nothing(world):
    fill(world.root / "mail", ALICE, 3)
    shutil.rmtree(world.root / "state")
    done = world.backup()
    assert done.returncode == 1
    assert "source state" in done.stderr
    assert world.value("backup_success") == 0
    assert not world.repository.exists()


def test_the_first_backup_tells_what_it_holds(world):
    fill(world.root / "mail", ALICE, 10)
    fill(world.root / "mail", ALICE, 4, folder=".Sent")
    fill(world.root / "mail", SPAM, 20)
    done = world.backup()
    assert done.returncode == 0, done.stderr
    assert world.value("backup_messages", mailbox=ALICE) == 14
    assert world.value("backup_messages", mailbox=SPAM) == 20
    assert world.value("backup_verified") == 1
    assert world.value("backup_snapshots") == 1
    now = pytest.approx(time.time(), abs=60)
    for metric in ("backup_last_success_timestamp", "backup_newest_snapshot_timestamp", "backup_oldest_snapshot_timestamp"):
        assert world.value(metric) == now
    size = sum(path.stat().st_size for path in world.repository.rglob("*") if path.is_file())
    assert world.value("backup_output_bytes") == pytest.approx(size, rel=0.05)
    assert world.value("backup_written_bytes") > 34 * 400
    assert world.value("backup_read_bytes") > 34 * 400
    assert world.value("backup_duration_seconds") > 0
    assert world.gateway.requests[-1] == ("PUT", f"/metrics/job/{JOB}")
    assert [snapshot["tags"] for snapshot in world.snapshots()] == [["good"]]


def test_logs_queue_and_what_dovecot_rebuilds_stay_out_and_what_it_needs_goes_in(world):
    fill(world.root / "mail", ALICE, 3)
    box = world.root / "mail" / "example.org" / "alice"
    wanted = ["dovecot-uidlist", "dovecot-keywords", "subscriptions", "dovecot-uidvalidity", "home/.dovecot.sieve"]
    unwanted = ["dovecot.index", "dovecot.index.cache", "dovecot.index.log", "dovecot.list.index", "dovecot.mailbox.log"]
    (box / "home").mkdir()
    for name in wanted + unwanted:
        (box / name).write_text("x", encoding="utf-8")
    queue = world.root / "state" / "spool-postfix" / "deferred"
    queue.mkdir(parents=True)
    (queue / "4F2A").write_text("queued", encoding="utf-8")
    assert world.backup().returncode == 0
    paths = {line.removeprefix(f"{box}/") for line in world.restic("ls", "latest").splitlines()}
    assert set(wanted) <= paths
    assert not set(unwanted) & paths
    assert not any("spool-postfix" in path for path in paths)


def test_a_mailbox_that_shrank_is_refused_until_somebody_says_it_is_meant(world):
    made = fill(world.root / "mail", ALICE, 100)
    fill(world.root / "mail", SPAM, 100)
    assert world.backup().returncode == 0
    for left in (40, 0):  # not only once: a refused backup is no new baseline
        for path in made[left:]:
            path.unlink(missing_ok=True)
        done = world.backup()
        assert done.returncode == 1
        assert f"{ALICE} fell from 100 to {left} messages" in done.stderr
        assert world.value("backup_success") == 0
        assert world.value("backup_messages", mailbox=ALICE) == 100
    assert world.backup("--accept-fall").returncode == 0
    assert world.backup().returncode == 0


def test_a_fall_within_bounds_and_a_small_mailbox_are_nothing(world):
    made = fill(world.root / "mail", ALICE, 100)
    few = fill(world.root / "mail", SPAM, 10)
    assert world.backup().returncode == 0
    for path in made[60:] + few[1:]:
        path.unlink()
    assert world.backup().returncode == 0


def test_no_mailbox_at_all_is_never_a_backup(world):
    (world.root / "mail" / "example.org").mkdir()
    done = world.backup()
    assert (done.returncode, "holds no mailbox" in done.stderr) == (1, True)


def test_mail_that_moves_and_arrives_while_it_is_saved_is_in_the_backup(world):
    """Flags change, new mail is opened, messages go to other folders: whatever was there before and after is in the snapshot."""
    fill(world.root / "mail", ALICE, 4000, size=4000)
    box = world.root / "mail" / "example.org" / "alice"
    for part in ("cur", "new", "tmp"):
        (box / ".Archive" / part).mkdir(parents=True)
    stop = threading.Event()

    def disturb():
        number = 0
        while not stop.is_set():
            for path in sorted((box / "cur").iterdir())[number % 50 :: 50]:
                number += 1
                if number % 3 == 0:
                    path.rename(box / ".Archive" / "cur" / path.name)
                else:
                    path.rename(path.with_name(path.name.partition(":")[0] + (":2,RS" if path.name.endswith(":2,S") else ":2,S")))
                time.sleep(0.0005)
            fresh = box / "new" / f"{time.time_ns()}.M1P2.host"
            fresh.write_text("Subject: fresh\n\nx\n", encoding="utf-8")

    before = {path.name.partition(":")[0] for path in box.rglob("*") if path.parent.name in {"cur", "new"}}
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        time.sleep(0.1)
        done = world.backup()
    finally:
        stop.set()
        thread.join()
    assert done.returncode == 0 or "still lacks" in done.stderr, done.stderr
    calm = world.backup() if done.returncode else done
    assert calm.returncode == 0, calm.stderr
    saved = {line.rpartition("/")[2].partition(":")[0] for line in world.restic("ls", "latest").splitlines()}
    assert before <= saved


def test_a_file_that_cannot_be_read_fails_the_backup(world):
    """Root reads everything, so the job runs as somebody else here."""
    fill(world.root / "mail", ALICE, 5)
    subprocess.run(["chown", "-R", "nobody", str(world.root), str(world.repository.parent), str(world.scratch), str(world.key)], check=True)
    for parent in world.root.parents:
        if str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    victim = next((world.root / "mail").rglob("cur/*"))
    os.chown(victim, 0, 0)
    victim.chmod(0o600)
    take_over = "import os,sys; os.setgid(65534); os.setuid(65534); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    arguments = ["-B", str(SCRIPTS / "backup.py"), *map(str, world.arguments())]
    done = subprocess.run(
        ["/usr/bin/python3", "-c", take_over, *arguments],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "cannot read" in done.stderr
    assert str(victim) in done.stderr


# --- what comes back ----------------------------------------------------------------------------------------------------------


def mailbox_view(port: int, authority, address: str) -> dict:
    """UIDs, flags, dates and contents of every folder, and the subscriptions, as a client sees them."""
    context = ssl.create_default_context(cafile=authority.authority)
    context.check_hostname = False
    view: dict = {}
    with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context, timeout=20) as session:
        session.login(address, PASSWORD)
        view["subscribed"] = sorted(session.lsub()[1])
        for folder in ("INBOX", "Archive"):
            assert session.select(folder, readonly=True)[0] == "OK"
            view[folder, "uidvalidity"] = session.response("UIDVALIDITY")[1]
            rows = session.uid("FETCH", "1:*", "(FLAGS INTERNALDATE BODY.PEEK[])")[1]
            view[folder] = sorted((row[0].partition(b"UID")[2], row[1]) for row in rows if isinstance(row, tuple))
    return view


def test_after_a_wipe_a_client_sees_the_same_uids_flags_dates_contents_and_subscriptions(world, tmp_path, authority):
    with dovecot(tmp_path / "before", authority.issue(NAME), [ALICE]) as server:
        context = ssl.create_default_context(cafile=authority.authority)
        context.check_hostname = False
        with imaplib.IMAP4_SSL("127.0.0.1", server.port, ssl_context=context) as session:
            session.login(ALICE, PASSWORD)
            session.create("Archive")
            session.subscribe("Archive")
            for number in range(30):
                flags = (r"(\Seen)", r"(\Answered $Important)", "")[number % 3]
                date = imaplib.Time2Internaldate(1_600_000_000 + number * 100_000)
                session.append("Archive" if number % 2 else "INBOX", flags, date, f"Subject: {number}\n\nbody {number}\n".encode())
            session.select("INBOX")
            session.store("2:4", "+FLAGS", r"(\Deleted)")
            session.expunge()  # so that UIDs are not simply 1, 2, 3
            session.select("Archive")  # a first look takes the flag \Recent away, which belongs to sessions and not to messages
        before = mailbox_view(server.port, authority, ALICE)
        shutil.rmtree(world.root / "mail")
        shutil.copytree(server.mail, world.root / "mail", symlinks=True)
        subprocess.run(["chown", "-R", f"{VMAIL}:{VMAIL}", str(world.root / "mail")], check=True)
    assert world.backup().returncode == 0
    files = state_of(world.root / "state")
    for source in ("mail", "state"):
        shutil.rmtree(world.root / source)
        (world.root / source).mkdir()
    assert "nothing was changed" in world.restore("--what", "whole").stdout
    assert list((world.root / "mail").iterdir()) == []
    done = world.restore("--what", "whole", "--go")
    assert done.returncode == 0, done.stderr
    assert state_of(world.root / "state") == files
    with dovecot(tmp_path / "after", authority.issue(NAME), [ALICE]) as server:
        shutil.rmtree(server.mail)
        subprocess.run(["cp", "-a", str(world.root / "mail"), str(server.mail)], check=True)
        assert mailbox_view(server.port, authority, ALICE) == before
        assert len(before["INBOX"]) == 12
        assert len(before["Archive"]) == 15


def test_twenty_thousand_messages_come_back_file_by_file_and_dovecot_counts_them(world):
    boxes = {f"user{number}@example.org": 4000 for number in range(4)}
    for address, count in boxes.items():
        fill(world.root / "mail", address, count, flags="FRS", size=100)
        fill(world.root / "mail", address, 1000, folder=".Archive", flags="S", size=100)
        (world.root / "mail" / "example.org" / address.partition("@")[0] / "subscriptions").write_text(
            "V\t2\n\nArchive\n", encoding="utf-8"
        )
    assert world.backup().returncode == 0
    assert [world.value("backup_messages", mailbox=address) for address in boxes] == [5000] * 4
    before = state_of(world.root / "mail")
    shutil.rmtree(world.root / "mail")
    (world.root / "mail").mkdir()
    assert world.restore("--what", "whole", "--go").returncode == 0
    assert state_of(world.root / "mail") == before
    assert world.drill().returncode == 0
    assert world.gateway.value("mail-restore-drill", "mail_restore_messages") == 20_000


def test_a_whole_restore_puts_what_is_there_aside_and_waits_for_a_stopped_server(world, gateway):
    made = fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    made[0].write_text("Subject: changed since\n\nx\n", encoding="utf-8")
    running = gateway.url.removeprefix("http://")
    refused = world.restore("--what", "whole", "--go", running=running)
    assert (refused.returncode, "still answers" in refused.stderr) == (1, True)
    assert "changed since" in made[0].read_text()
    assert world.restore("--what", "whole", "--go").returncode == 0
    assert "changed since" not in made[0].read_text()
    (aside,) = (world.root / "mail").glob(".before-restore-*")
    assert "changed since" in (aside / made[0].relative_to(world.root / "mail")).read_text()
    assert world.backup().returncode == 0
    assert world.value("backup_messages", mailbox=ALICE) == 5  # what was put aside is no mailbox


def test_a_mailbox_gets_back_what_it_lacks_and_keeps_what_it_has(world):
    made = fill(world.root / "mail", ALICE, 20)
    sent = fill(world.root / "mail", ALICE, 5, folder=".Sent", flags="RS")
    assert world.backup().returncode == 0
    before = state_of(world.root / "mail")
    for path in (*made[3:8], *sent):
        path.unlink()
    newer = made[1].with_name("1800000000.M1P1.host:2,S")
    newer.write_text("Subject: newer\n\nx\n", encoding="utf-8")
    made[2].rename(made[2].with_name(made[2].name.partition(":")[0] + ":2,FS"))  # flagged since: it is the same message
    dry = world.restore("--what", "mailbox", "--mailbox", ALICE)
    assert "10 of 25 messages are to be added, 15 are there already" in dry.stdout
    assert not made[4].exists()
    assert world.restore("--what", "mailbox", "--mailbox", ALICE, "--go").returncode == 0
    after = state_of(world.root / "mail")
    assert newer.exists()
    assert made[2].with_name(made[2].name.partition(":")[0] + ":2,FS").exists()
    unique = {path.rpartition("/")[2].partition(":")[0]: path for path in after}
    assert len(unique) == len(after) == 26
    for path, (content, owner, _, date) in before.items():
        again = after[unique[path.rpartition("/")[2].partition(":")[0]]]
        assert (again[0], again[1], again[3]) == (content, owner, date)
    assert {path.rpartition(":2,")[2] for path in after if "/.Sent/cur/" in path and ":2,RS" in path} == {"RS"}
    again = world.restore("--what", "mailbox", "--mailbox", ALICE, "--go")
    assert "0 of 25 messages are to be added" in again.stdout


def test_a_mailbox_comes_back_into_a_folder_that_clients_show(world, tmp_path, authority):
    fill(world.root / "mail", ALICE, 6)
    fill(world.root / "mail", ALICE, 2, folder=".Sent")
    assert world.backup().returncode == 0
    assert world.restore("--what", "mailbox", "--mailbox", ALICE, "--into", "Restored 2026", "--go").returncode == 0
    with dovecot(tmp_path / "server", authority.issue(NAME), [ALICE]) as server:
        shutil.rmtree(server.mail)
        subprocess.run(["cp", "-a", str(world.root / "mail"), str(server.mail)], check=True)
        context = ssl.create_default_context(cafile=authority.authority)
        context.check_hostname = False
        with imaplib.IMAP4_SSL("127.0.0.1", server.port, ssl_context=context) as session:
            session.login(ALICE, PASSWORD)
            counts = {name: session.select(f'"{name}"')[1] for name in ("INBOX", "Restored 2026", "Restored 2026.Sent", "Sent")}
            assert counts == {"INBOX": [b"6"], "Restored 2026": [b"6"], "Restored 2026.Sent": [b"2"], "Sent": [b"2"]}
            subscribed = b" ".join(row for row in session.lsub()[1] if row)
            assert b"Restored 2026" in subscribed
            assert b"Restored 2026.Sent" in subscribed
        assert "Error" not in server.log()


def test_one_message_comes_back_from_the_day_it_was_there(world):
    made = fill(world.root / "mail", ALICE, 8)
    assert world.backup().returncode == 0
    world.earlier(days=3)
    made[4].unlink()
    fill(world.root / "mail", SPAM, 2)
    assert world.backup().returncode == 0
    wanted = ("--what", "message", "--mailbox", ALICE, "--message-id", "<4.alice@example.org>")
    absent = world.restore(*wanted, "--go")
    assert (absent.returncode, "has no message" in absent.stderr) == (1, True)
    moment = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 2 * 86400))
    assert world.restore(*wanted, "--at", moment, "--go").returncode == 0
    assert (
        "4.alice@example.org" in made[4].read_text()
        if made[4].exists()
        else any("4.alice@example.org" in path.read_text() for path in (world.root / "mail" / "example.org" / "alice" / "cur").iterdir())
    )
    listed = world.restore("--what", "list").stdout
    assert f"{ALICE} 8" in listed
    assert f"{ALICE} 7" in listed
    early = world.restore(*wanted, "--at", "2001-01-01")
    assert (early.returncode, "no snapshot" in early.stderr) == (1, True)


def test_a_replaced_mailbox_is_what_it_was(world):
    made = fill(world.root / "mail", ALICE, 6)
    uidlist = world.root / "mail" / "example.org" / "alice" / "dovecot-uidlist"
    uidlist.write_text("3 V1 N7 G1\n", encoding="utf-8")
    assert world.backup().returncode == 0
    before = state_of(world.root / "mail")
    made[0].unlink()
    uidlist.write_text("3 V2 N9 G2\n", encoding="utf-8")
    assert world.restore("--what", "mailbox", "--mailbox", ALICE, "--replace", "--go").returncode == 0
    assert state_of(world.root / "mail") == before


# --- the drill ----------------------------------------------------------------------------------------------------------------


def test_the_drill_counts_with_dovecot_and_leaves_nothing_behind(world):
    fill(world.root / "mail", ALICE, 12)
    fill(world.root / "mail", ALICE, 3, folder=".Sent")
    fill(world.root / "mail", SPAM, 7)
    assert world.backup().returncode == 0
    done = world.drill()
    assert done.returncode == 0, done.stderr
    assert f"{ALICE}: fetched its newest message" in done.stdout
    group = world.gateway.groups["mail-restore-drill"]
    assert group["mail_restore_messages"][()] == 22
    assert group["mail_restore_success"][()] == 1
    assert group["mail_restore_last_success_timestamp"][()] == pytest.approx(time.time(), abs=60)
    assert group["mail_restore_seconds"][()] > 0
    assert not (world.scratch / "restored").exists()


def test_the_drill_finds_a_snapshot_without_the_mail_that_its_manifest_promises(world):
    made = fill(world.root / "mail", ALICE, 40)
    assert world.backup().returncode == 0
    for path in made[:30]:
        path.unlink()
    world.restic("backup", "--host", JOB, "--tag", "good", *(str(world.root / name) for name in ("mail", "state", "manifest")))
    done = world.drill()
    assert done.returncode == 1
    assert f"{ALICE} has 10 of 40 messages" in done.stderr
    assert world.gateway.value("mail-restore-drill", "mail_restore_success") == 0


def test_the_drill_finds_a_newest_message_that_cannot_be_fetched(world):
    made = fill(world.root / "mail", ALICE, 40)
    assert world.backup().returncode == 0
    newest = max(made, key=lambda path: path.stat().st_mtime)
    newest.write_text("Subject: another\n\nx\n", encoding="utf-8")
    world.restic("backup", "--host", JOB, "--tag", "good", *(str(world.root / name) for name in ("mail", "state", "manifest")))
    done = world.drill()
    assert (done.returncode, "does not find the newest message" in done.stderr) == (1, True)


def test_a_drill_without_a_backup_fails(world):
    assert world.drill().returncode == 1


# --- what can go wrong --------------------------------------------------------------------------------------------------------


def test_a_corrupt_byte_in_the_repository_is_found_and_the_drill_fails_too(world):
    fill(world.root / "mail", ALICE, 50, size=5000)
    assert world.backup().returncode == 0
    pack = max((world.repository / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(pack.read_bytes())
    content[len(content) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    success = world.value("backup_last_success_timestamp")
    done = world.backup()
    assert done.returncode == 1
    assert world.value("backup_verified") == 0
    assert world.value("backup_success") == 0
    assert world.value("backup_last_success_timestamp") == success
    assert world.drill().returncode == 1


def test_a_full_disk_is_a_clear_failure_and_the_next_run_recovers(world):
    fill(world.root / "mail", ALICE, 300, size=20_000)
    mount = world.repository.parent
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], check=True)
    try:
        done = world.backup()
        assert done.returncode == 1
        assert "no space left" in done.stderr
        assert world.value("backup_success") == 0
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        again = world.backup()
        assert again.returncode == 0, again.stderr
        assert world.value("backup_messages", mailbox=ALICE) == 300
        assert world.drill().returncode == 0
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_killed_job_leaves_no_good_snapshot_and_the_next_run_recovers(world):
    fill(world.root / "mail", ALICE, 3000, size=20_000)
    arguments = [sys.executable, "-B", str(SCRIPTS / "backup.py"), *map(str, world.arguments())]
    process = subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not any((world.repository / "locks").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert process.returncode != 0
    assert list((world.repository / "locks").iterdir()), "restic was not at work when it was killed"
    done = world.backup()
    assert done.returncode == 0, done.stderr
    assert "of an earlier run that was killed" in done.stdout
    assert [snapshot["tags"] for snapshot in world.snapshots()] == [["good"]]
    assert world.drill().returncode == 0


def test_a_wrong_key_is_said_and_changes_nothing(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    before = sorted(world.repository.rglob("*"))
    world.key.write_text("another key", encoding="utf-8")
    done = world.backup()
    assert done.returncode == 1
    assert "wrong password" in done.stderr
    assert "another key" not in done.stdout + done.stderr
    assert sorted(world.repository.rglob("*")) == before
    world.key.write_text("", encoding="utf-8")
    assert "key" in world.backup().stderr
    world.key.write_text(KEY, encoding="utf-8")
    assert world.backup().returncode == 0


def test_a_repository_that_lost_its_config_is_not_begun_anew(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    (world.repository / "config").unlink()
    done = world.backup()
    assert (done.returncode, "is damaged" in done.stderr) == (1, True)
    assert any((world.repository / "data").rglob("*"))


def test_the_folders_of_an_older_backup_beside_the_repository_stay(world):
    fill(world.root / "mail", ALICE, 5)
    old = world.repository.parent / "2026-31" / "mail"
    old.mkdir(parents=True)
    (old / "mail.log").write_text("x", encoding="utf-8")
    assert world.backup().returncode == 0
    assert (old / "mail.log").read_text() == "x"


def test_seven_daily_and_eight_weekly_snapshots_are_kept(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    now = time.time()
    for days in (*range(1, 10), *range(14, 84, 7)):
        world.earlier(days)
    assert world.backup().returncode == 0
    ages = [round((now - time.mktime(time.strptime(s["time"][:19], "%Y-%m-%dT%H:%M:%S"))) / 86400) for s in world.snapshots()]
    assert sorted(age for age in ages if age <= 6) == list(range(7))
    assert 12 <= len(ages) <= 15
    assert 42 <= max(ages) <= 56
    assert world.value("backup_snapshots") == len(ages)
    assert world.value("backup_oldest_snapshot_timestamp") == pytest.approx(now - max(ages) * 86400, abs=86400 * 1.1)
