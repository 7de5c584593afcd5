"""Backup with the real restic: what it holds, what it refuses, and what happens when something breaks."""

import os
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from tests.lab.jobs.world import ALICE, JOB, KEY, SCRIPTS, SPAM, fill
from tools.lab.servers import reachable


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
    began = int(time.time())
    done = world.backup()
    assert done.returncode == 0, done.stderr
    assert world.value("backup_messages", mailbox=ALICE) == 14
    assert world.value("backup_messages", mailbox=SPAM) == 20
    assert world.value("backup_verified") == 1
    assert world.value("backup_snapshots") == 1
    for metric in ("backup_last_success_timestamp", "backup_newest_snapshot_timestamp", "backup_oldest_snapshot_timestamp"):
        assert began <= world.value(metric) <= time.time()
    size = sum(path.stat().st_size for path in world.repository.rglob("*") if path.is_file())
    assert world.value("backup_output_bytes") == pytest.approx(size, rel=0.05)
    assert world.value("backup_written_bytes") > 34 * 400
    assert world.value("backup_read_bytes") > 34 * 400
    assert world.value("backup_duration_seconds") > 0
    assert world.gateway.requests[-1] == ("PUT", f"/metrics/job/{JOB}")
    assert [snapshot["tags"] for snapshot in world.snapshots()] == [["good", "gone-0"]]


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


def test_a_mailbox_that_shrank_is_refused_until_the_fall_is_accepted(world):
    made = fill(world.root / "mail", ALICE, 100)
    fill(world.root / "mail", SPAM, 100)
    assert world.backup().returncode == 0
    for left in (40, 0):  # not only once: a refused backup does not become the baseline
        for path in made[left:]:
            path.unlink(missing_ok=True)
        done = world.backup()
        assert done.returncode == 1
        assert f"{ALICE} fell from 100 to {left} messages" in done.stderr
        assert world.value("backup_success") == 0
        assert world.value("backup_messages", mailbox=ALICE) == 100
    assert world.backup("--accept-fall").returncode == 0
    assert world.backup().returncode == 0


def test_a_fall_within_bounds_and_one_of_a_small_mailbox_are_accepted(world):
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
    """Root reads everything, so the job runs as another user here."""
    fill(world.root / "mail", ALICE, 5)
    subprocess.run(["chown", "-R", "65534", str(world.root), str(world.repository.parent), str(world.scratch), str(world.key)], check=True)
    reachable(world.root)
    victim = next((world.root / "mail").rglob("cur/*"))
    os.chown(victim, 0, 0)
    victim.chmod(0o600)
    take_over = "import os,sys; os.setgid(65534); os.setuid(65534); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    arguments = ["-B", str(SCRIPTS / "backup.py"), *map(str, world.arguments("--new-repository"))]
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


def test_damage_that_was_found_stays_found_when_another_part_has_its_day(world):
    fill(world.root / "mail", ALICE, 50, size=5000)
    assert world.backup().returncode == 0
    pack = max((world.repository / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    sound = pack.read_bytes()
    pack.chmod(0o600)
    pack.write_bytes(sound[:100] + bytes([sound[100] ^ 1]) + sound[101:])
    assert world.backup().returncode == 1
    assert world.backup("--verify-parts", 256).returncode == 1
    assert world.value("backup_verified") == 0
    pack.write_bytes(sound)
    assert world.backup("--verify-parts", 256).returncode == 0
    assert world.value("backup_verified") == 1


def test_a_repository_that_cannot_be_read_is_reported_as_a_failure(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    shutil.rmtree(world.repository)
    world.repository.write_text("a file where a folder should be", encoding="utf-8")
    assert world.backup().returncode == 1
    assert world.value("backup_success") == 0


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
    process = world.start("--new-repository")
    world.wait_for(lambda: any((world.repository / "locks").glob("[0-9a-f]" * 64)), process)  # written out: by then it has its name
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode != 0
    assert list((world.repository / "locks").iterdir()), "restic was not at work when it was killed"
    done = world.backup()
    assert done.returncode == 0, done.stderr
    assert "of an earlier run that was killed" in done.stdout
    assert [snapshot["tags"] for snapshot in world.snapshots()] == [["good", "gone-0"]]
    assert world.drill().returncode == 0


def test_another_programs_work_on_the_repository_is_waited_for(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    place = ["--repo", str(world.repository), "--password-file", str(world.key), "--no-cache", "backup", "--stdin"]
    elsewhere = ["unshare", "--uts", "bash", "-c", 'hostname elsewhere; exec restic "$@"', "restic", *place]
    other = subprocess.Popen(elsewhere, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)  # at work for as long as its input is open
    world.wait_for(lambda: any((world.repository / "locks").iterdir()), other)
    with ThreadPoolExecutor() as pool:
        job = pool.submit(world.backup)
        assert not wait([job], timeout=8).done  # time enough to fail where it does not wait
        assert other.poll() is None
        other.communicate(b"x")
        done = job.result()
    assert done.returncode == 0, done.stderr
    assert "killed" not in done.stdout


def test_a_wrong_key_is_reported_and_changes_nothing(world):
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


def test_a_repository_that_lost_its_config_is_not_recreated(world):
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
