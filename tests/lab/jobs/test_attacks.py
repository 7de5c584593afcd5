"""Ways in which mail was lost while everything was green. Each was seen once; none may come back."""

import fcntl
import imaplib
import importlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.lab.jobs.world import ALICE, DRILL, JOB, SCRIPTS, SPAM, fill
from tools.lab.servers import NAME, PASSWORD, dovecot, reachable


def saved(world) -> set[str]:
    return set(world.restic("ls", "latest").splitlines())


def box(world, address: str = ALICE):
    user, _, domain = address.rpartition("@")
    return world.root / "mail" / domain / user


# --- Names that a user can choose ---------------------------------------------------------------------------------------------

# As the user writes them; each looks like something that a backup might leave out.
FOLDERS = [
    *("log", "Work.log", "dovecot.index", "dovecot.index.log", "dovecot.list.index", "dovecot-uidlist.lock", "x.svbin", "svbin"),
    *("spool-postfix", "before-restore-2026", "manifest", "tmp", "cur", "new", "home", "lost+found", "nfs0001", "cache", "&AOk-t&AOk-"),
]
MAILBOXES = [
    "captains.log@example.org",
    "dovecot.index@example.org",
    "x.svbin@example.org",
    "spool-postfix@example.org",
    "50%off@example.org",
]


def test_no_name_of_a_folder_keeps_it_out_of_backup_drill_and_restore(world):
    for number, folder in enumerate(FOLDERS):
        fill(world.root / "mail", ALICE, number + 1, folder=f".{folder}")
    assert world.backup().returncode == 0
    total = sum(range(len(FOLDERS) + 1))
    assert world.value("backup_messages", mailbox=ALICE) == total
    done = world.drill()
    assert done.returncode == 0, done.stderr
    assert world.gateway.value(DRILL, "mail_restore_messages") == total
    shutil.rmtree(box(world))
    assert world.restore("--what", "whole", "--go").returncode == 0
    for number, folder in enumerate(FOLDERS):
        files = [path for part in ("cur", "new") for path in (box(world) / f".{folder}" / part).iterdir()]
        assert len(files) == number + 1, folder


def test_no_name_of_a_mailbox_keeps_it_out(world):
    for number, address in enumerate(MAILBOXES):
        fill(world.root / "mail", address, number + 1)
    assert world.backup().returncode == 0
    assert [world.value("backup_messages", mailbox=address) for address in MAILBOXES] == [1, 2, 3, 4, 5]
    done = world.drill()
    assert done.returncode == 0, done.stderr


def test_no_name_of_a_sieve_script_keeps_it_out(world):
    fill(world.root / "mail", ALICE, 3)
    scripts = box(world) / "home" / "sieve"
    scripts.mkdir(parents=True)
    names = ["x.log.sieve", "dovecot.index.sieve", "a.svbin.sieve", "spool-postfix.sieve"]
    for name in [*names, "a.svbin"]:
        (scripts / name).write_text("keep;\n", encoding="utf-8")
    assert world.backup().returncode == 0
    paths = saved(world)
    assert {f"{scripts}/{name}" for name in names} <= paths
    assert f"{scripts}/a.svbin" not in paths


@pytest.mark.parametrize("pattern", ["*.log", "cur", "*/.Work*", "*M1P1*", "1700*"])
def test_an_exclusion_that_catches_mail_fails_the_backup(world, tmp_path, pattern):
    """The survey does not know the exclusions, so it cannot agree with them."""
    programs = tmp_path / "programs"
    shutil.copytree(SCRIPTS, programs)
    text = (programs / "backup.py").read_text("utf-8")
    changed = text.replace('patterns = [f"{root}', f'patterns = ["{pattern}", f"{{root}}', 1)
    assert changed != text
    (programs / "backup.py").write_text(changed, encoding="utf-8")
    fill(world.root / "mail", ALICE, 3)
    fill(world.root / "mail", ALICE, 3, folder=".Work.log")
    world.programs = programs
    done = world.backup()
    assert (done.returncode, "the snapshot still lacks" in done.stderr) == (1, True)
    assert world.value("backup_success") == 0


def test_an_exclusion_that_catches_an_empty_folder_fails_the_backup(world, tmp_path):
    programs = tmp_path / "programs"
    shutil.copytree(SCRIPTS, programs)
    text = (programs / "backup.py").read_text("utf-8")
    (programs / "backup.py").write_text(text.replace('patterns = [f"{root}', 'patterns = [".Empty", f"{root}', 1), encoding="utf-8")
    fill(world.root / "mail", ALICE, 3)
    fill(world.root / "mail", ALICE, 0, folder=".Empty")
    world.programs = programs
    assert world.backup().returncode == 1


# --- A repository that is not there -------------------------------------------------------------------------------------------


def test_an_export_that_comes_back_empty_gets_no_new_repository(world):
    made = fill(world.root / "mail", ALICE, 100)
    assert world.backup().returncode == 0
    before = world.value("backup_repository", id=world.fingerprint())
    assert before == 1
    hidden = world.repository.parent.with_name("disk")
    world.repository.parent.rename(hidden)
    world.repository.parent.mkdir()
    for path in made[20:]:
        path.unlink()
    done = world.run("backup.py", *world.arguments())
    assert done.returncode == 1
    assert "there is no repository" in done.stderr
    assert "--new-repository" in done.stderr
    assert world.value("backup_success") == 0
    assert list(world.repository.parent.iterdir()) == []
    for program in (world.drill, world.restore):
        done = program()
        assert (done.returncode, "there is no repository" in done.stderr) == (1, True)


def test_a_new_repository_is_made_once(world):
    fill(world.root / "mail", ALICE, 3)
    assert world.backup().returncode == 0
    before = world.fingerprint()
    done = world.backup("--new-repository")
    assert (done.returncode, "there is one already" in done.stderr) == (1, True)
    assert world.fingerprint() == before


# --- What shrinks -------------------------------------------------------------------------------------------------------------


def test_a_few_files_that_all_vanish_are_refused(world):
    """PGP keys: a source with so few files that any share of them may go, but never all."""
    fill(world.root / "mail", ALICE, 30)
    keys = [world.root / "state" / f"key{number}" for number in range(6)]
    for path in keys:
        path.write_text("secret key", encoding="utf-8")
    assert world.backup().returncode == 0
    for path in keys[1:]:
        path.unlink()
    assert world.backup().returncode == 0
    shutil.rmtree(world.root / "state" / "lib-rspamd")
    keys[0].unlink()
    for _ in range(2):
        done = world.backup()
        assert (done.returncode, "source state fell from 2 to 0 files" in done.stderr) == (1, True)


def test_a_source_that_lost_most_of_its_files_is_refused(world):
    fill(world.root / "mail", ALICE, 30)
    files = [world.root / "state" / f"file{number}" for number in range(100)]
    for path in files:
        path.write_text("x", encoding="utf-8")
    assert world.backup().returncode == 0
    for path in files[40:]:
        path.unlink()
    done = world.backup()
    assert (done.returncode, "source state fell from 101 to 41 files" in done.stderr) == (1, True)


def test_truncated_messages_are_refused_though_none_is_missing(world):
    made = fill(world.root / "mail", ALICE, 60)
    assert world.backup().returncode == 0
    for path in made[:-1]:
        os.truncate(path, 0)
    done = world.backup()
    assert done.returncode == 1
    assert f"{ALICE} fell from" in done.stderr and "bytes" in done.stderr
    assert "59 messages whose files are empty or not of the size in their names" in done.stderr


def test_a_few_damaged_messages_are_reported_and_more_are_refused_once(world):
    made = fill(world.root / "mail", ALICE, 60)
    assert world.backup().returncode == 0
    for path in made[:3]:
        path.write_bytes(path.read_bytes() + b"x")
    done = world.backup()
    assert (done.returncode, "3 messages whose files are empty or not of the size" in done.stdout) == (0, True)
    assert world.value("backup_mismatched_messages", mailbox=ALICE) == 3
    for path in made[3:10]:
        path.write_bytes(path.read_bytes() + b"x")
    assert "7 messages whose files are empty" in world.backup().stderr
    assert world.backup("--accept-fall").returncode == 0
    assert world.backup().returncode == 0


def test_a_mailbox_of_three_messages_that_are_all_empty_is_refused(world):
    made = fill(world.root / "mail", ALICE, 60) and fill(world.root / "mail", SPAM, 3)
    assert world.backup().returncode == 0
    for path in made:
        os.truncate(path, 0)
    done = world.backup()
    assert (done.returncode, f"{SPAM} fell from" in done.stderr) == (1, True)


def test_noise_of_the_right_size_is_found_by_the_drill(world):
    made = fill(world.root / "mail", ALICE, 60)
    newest = max(made, key=lambda path: path.stat().st_mtime)
    for path in made:
        if path != newest:
            path.write_bytes(os.urandom(path.stat().st_size))
    assert world.backup().returncode == 0  # so many bytes as before: only a reader can tell
    done = world.drill()
    assert (done.returncode, "are mail" in done.stderr) == (1, True)
    assert world.gateway.value(DRILL, "mail_restore_success") == 0


def test_noise_among_mail_is_found_by_the_drill(world):
    """Two messages of twelve are enough: the sample of a small folder is the whole folder."""
    made = fill(world.root / "mail", ALICE, 10)
    for path in made[2:4]:
        path.write_bytes(bytes(path.stat().st_size))  # zeros, as a file system leaves them after a crash
    assert world.backup().returncode == 0
    done = world.drill()
    assert (done.returncode, "8 are mail" in done.stderr) == (1, True), done.stderr


def test_a_message_that_dovecot_complains_of_fails_the_drill(world):
    made = fill(world.root / "mail", ALICE, 1)
    made[0].write_bytes(made[0].read_bytes()[:-50])
    assert world.backup().returncode == 0
    done = world.drill()
    assert (done.returncode, "Dovecot complains" in done.stderr) == (1, True), done.stderr


# --- The drill: exact -----------------------------------------------------------------------------------------------------------


def forge(world) -> None:
    """What is there now, called good by hand, with the manifest of the last real backup."""
    world.restic("backup", "--host", JOB, "--tag", "good", *(str(world.root / name) for name in ("mail", "state", "manifest")))


def test_the_drill_misses_a_single_message(world):
    made = fill(world.root / "mail", ALICE, 40)
    assert world.backup().returncode == 0
    made[7].unlink()
    forge(world)
    done = world.drill()
    assert (done.returncode, f"{ALICE} has 39 of 40 messages" in done.stderr) == (1, True)


def test_the_drill_misses_a_source_and_its_files(world):
    fill(world.root / "mail", ALICE, 40)
    (world.root / "state" / "second").write_text("x", encoding="utf-8")
    assert world.backup().returncode == 0
    (world.root / "state" / "second").unlink()
    forge(world)
    assert "source state has 1 of 2 files" in world.drill().stderr
    shutil.rmtree(world.root / "state" / "lib-rspamd")
    forge(world)
    assert "source state has 0 of 2 files" in world.drill().stderr


def test_the_drill_accepts_what_was_deleted_while_the_backup_ran(world):
    made = fill(world.root / "mail", ALICE, 40)
    restic, go = world.slow_restic("backup")
    process = world.start("--new-repository", "--restic", restic)
    world.wait_for((world.scratch / "waiting").exists, process)
    for path in made[:15]:
        path.unlink()
    go.touch()
    process.wait()
    assert process.returncode == 0
    assert world.snapshots()[0]["tags"] == ["good", "gone-15"]
    done = world.drill()
    assert done.returncode == 0, done.stderr
    assert world.gateway.value(DRILL, "mail_restore_messages") == 25


@pytest.mark.parametrize(
    "change",
    [
        """*" ls "*) restic "$@" | sed '/1700000001/s/"size":[0-9]*/"size":3/';;""",
        """*" tar "*) restic "$@" | tar --delete --wildcards '*/1700000001*' -f -;;""",
    ],
    ids=["another size", "missing"],
)
def test_a_restored_file_that_differs_from_the_list_fails_the_drill(world, change):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    restic = world.key.with_name("changing-restic")
    restic.write_text(f'#!/bin/sh\ncase " $* " in {change} *) exec restic "$@";; esac\n', encoding="utf-8")
    restic.chmod(0o755)
    done = world.drill("--restic", restic)
    assert (done.returncode, "1 files are not as in the snapshot's list" in done.stderr) == (1, True), done.stderr


def test_dovecot_has_to_show_every_message_and_runs_without_privileges(world, tmp_path):
    """An imap that hides a message: the drill counts what Dovecot says, and not files again."""
    made = fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    who = tmp_path / "who"
    who.touch()
    who.chmod(0o666)
    reachable(tmp_path)
    imap = tmp_path / "imap"
    hide = f"find {world.scratch}/restored -name '{made[1].name.partition(':')[0]}*' -delete"
    imap.write_text(f'#!/bin/sh\nid -u > {who}\n{hide}\nexec /usr/lib/dovecot/imap "$@"\n', encoding="utf-8")
    imap.chmod(0o755)
    done = world.drill("--imap", imap)
    assert (done.returncode, "Dovecot shows 4 of 5 restored messages" in done.stderr) == (1, True), done.stderr
    assert who.read_text().strip() == "5000"


def test_a_drill_of_an_old_snapshot_fails(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    assert world.drill("--max-age", 86400).returncode == 0
    (snapshot,) = world.snapshots()
    world.earlier(days=3)
    world.restic("forget", snapshot["id"])
    done = world.drill("--max-age", 86400)
    assert (done.returncode, "the backup has not succeeded since" in done.stderr) == (1, True)
    assert world.gateway.value(DRILL, "mail_restore_snapshot_timestamp") == pytest.approx(time.time() - 3 * 86400, abs=3600)


# --- Malformed names -------------------------------------------------------------------------------------------------------------


def test_odd_names_stop_neither_backup_nor_drill(world):
    fill(world.root / "mail", ALICE, 4)
    fill(world.root / "mail", ALICE, 2, folder=".two\nlines")
    fill(world.root / "mail", ALICE, 3, folder='.a"quote\\')
    fill(world.root / "mail", "50%off@example.org", 3)
    (box(world) / "home").mkdir()
    for name in (b"caf\xe9.sieve", b"cut\xe2\x82.sieve", b"line\nbreak.sieve"):
        (box(world) / "home" / os.fsdecode(name)).write_text("keep;\n", encoding="utf-8")
    (world.root / "state" / "upload%20name #1.txt").write_text("x", encoding="utf-8")
    done = world.backup()
    assert done.returncode == 0, done.stderr
    done = world.drill()
    assert done.returncode == 0, done.stderr
    assert world.gateway.value(DRILL, "mail_restore_messages") == 12


def test_a_folder_that_is_a_link_is_reported_and_stops_nothing(world, tmp_path):
    fill(world.root / "mail", ALICE, 4)
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "cur").mkdir(parents=True)
    (box(world) / ".Linked").symlink_to(elsewhere)
    done = world.backup()
    assert done.returncode == 0, done.stderr
    assert ".Linked' is a symbolic link" in done.stdout
    assert world.value("backup_unsaved_links") == 1
    done = world.drill()
    assert done.returncode == 0, done.stderr


def test_a_snapshot_that_is_not_ours_hides_no_other(world):
    fill(world.root / "mail", ALICE, 4)
    assert world.backup().returncode == 0
    world.restic("backup", "--host", JOB, "--time", "2001-01-01 00:00:00", str(world.root / "state"))
    done = world.restore("--what", "list")
    assert done.returncode == 0, done.stderr
    assert "not made by the backup job" in done.stdout
    assert f"{ALICE} 4" in done.stdout


# --- The clock ------------------------------------------------------------------------------------------------------------------


def test_one_night_in_the_future_is_not_the_newest_forever(world):
    made = fill(world.root / "mail", ALICE, 4)
    assert world.backup().returncode == 0
    world.earlier(days=-1700)
    (future,) = [snapshot for snapshot in world.snapshots() if snapshot["time"] > "2027"]
    made[0].unlink()
    for program in (world.backup, world.drill, lambda: world.restore("--what", "mailbox", "--mailbox", ALICE)):
        done = program()
        assert (done.returncode, "one of the two clocks is wrong" in done.stderr) == (1, True), done.stderr
    assert future["short_id"] in done.stderr
    assert world.backup("--wrong-clock", future["id"]).returncode == 0
    assert world.drill().returncode == 0
    assert [snapshot["tags"][0] for snapshot in world.snapshots()] == ["good", "wrong-clock"]  # ignored, and not deleted
    assert world.value("backup_newest_snapshot_timestamp") == pytest.approx(time.time(), abs=600)


def test_a_snapshot_that_would_be_forgotten_at_once_is_not_a_success(world):
    """A clock of 2001, as restic would see it: the rule keeps the newest days, and tonight is not among them."""
    fill(world.root / "mail", ALICE, 4)
    assert world.backup().returncode == 0
    for days in (*range(1, 8), *range(14, 84, 7)):
        world.earlier(days)
    restic = world.key.with_name("restic-of-2001")
    restic.write_text(
        '#!/bin/sh\ncase " $* " in *" backup "*) exec restic "$@" --time "2001-01-01 00:00:00";; esac\nexec restic "$@"\n', encoding="utf-8"
    )
    restic.chmod(0o755)
    done = world.backup("--restic", restic)
    assert (done.returncode, "was the first to be forgotten" in done.stderr) == (1, True)
    assert world.value("backup_success") == 0


# --- Runs that end early ---------------------------------------------------------------------------------------------------------


def test_a_deadline_is_reported_and_leaves_no_lock(world):
    fill(world.root / "mail", ALICE, 4)
    assert world.backup().returncode == 0
    restic, _ = world.slow_restic("backup")
    process = world.start("--restic", restic)
    world.wait_for((world.scratch / "waiting").exists, process)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate()
    assert process.returncode != 0
    assert "ended from outside" in words
    assert world.value("backup_success") == 0
    assert list((world.repository / "locks").iterdir()) == []


def test_a_backup_that_could_not_be_reported_is_a_failure(world):
    fill(world.root / "mail", ALICE, 4)
    world.gateway.broken = 100
    done = world.backup()
    assert (done.returncode, "Pushgateway: failed" in done.stderr) == (1, True)


def test_a_drill_that_could_not_be_reported_is_a_failure(world):
    fill(world.root / "mail", ALICE, 4)
    assert world.backup().returncode == 0
    world.gateway.broken = 100
    done = world.drill()
    assert (done.returncode, "Pushgateway: failed" in done.stderr) == (1, True)


@pytest.mark.parametrize("program", ["drill", "restore"])
def test_a_deadline_ends_drill_and_restore_in_order(world, program):
    """The drill reports its failure; both stop restic, and leave nothing in their scratch space."""
    fill(world.root / "mail", ALICE, 4)
    assert world.backup().returncode == 0
    restic, _ = world.slow_restic({"drill": "dump", "restore": "restore"}[program])
    with ThreadPoolExecutor() as pool:
        arguments = () if program == "drill" else ("--what", "mailbox", "--mailbox", ALICE, "--go")
        running = pool.submit(getattr(world, program), *arguments, "--restic", restic)
        while not (world.scratch / "waiting").exists():
            assert not running.done(), running.result().stderr
            time.sleep(0.02)
        (pid,) = [int(path.name) for path in Path("/proc").glob("[0-9]*") if _runs(path, f"/{program}.py", str(world.scratch))]
        os.kill(pid, signal.SIGTERM)
        done = running.result()
    assert (done.returncode, "ended from outside" in done.stderr) == (1, True), done.stderr
    assert not (world.scratch / "restored").exists()
    if program == "drill":
        assert world.gateway.value(DRILL, "mail_restore_success") == 0


def _runs(process: Path, *words: str) -> bool:
    try:
        line = (process / "cmdline").read_text("utf-8", "replace")
    except OSError:
        return False
    return all(word in line for word in words)


def test_snapshots_of_runs_that_did_not_end_are_forgotten(world):
    fill(world.root / "mail", ALICE, 4)
    assert world.backup().returncode == 0
    world.restic("backup", "--host", JOB, "--tag", "unchecked", str(world.root / "mail"))
    assert world.backup().returncode == 0
    assert [snapshot["tags"] for snapshot in world.snapshots()] == [["good", "gone-0"]]


def test_a_superseded_pass_is_forgotten(world):
    """Mail that moves to a folder behind the reader's back makes a second pass; of the first nothing stays."""
    made = fill(world.root / "mail", ALICE, 40)
    for part in ("cur", "new", "tmp"):
        (box(world) / ".Archive" / part).mkdir(parents=True)
    restic = world.key.with_name("restic-moves")
    again = world.scratch / "again"
    move = f"mv '{made[1]}' '{box(world)}/.Archive/cur/'"
    restic.write_text(
        f'#!/bin/sh\nrestic "$@" || exit\ncase " $* " in *" backup "*) [ -e {again} ] || {move}; touch {again};; esac\n', encoding="utf-8"
    )
    restic.chmod(0o755)
    done = world.backup("--restic", restic)
    assert done.returncode == 0, done.stderr
    assert "once more" in done.stdout
    assert len(world.snapshots()) == 1
    assert any(made[1].name.partition(":")[0] in path and ".Archive" in path for path in saved(world))


def test_a_damaged_repository_forgets_nothing(world):
    fill(world.root / "mail", ALICE, 50, size=5000)
    assert world.backup().returncode == 0
    for days in range(1, 12):
        world.earlier(days)
    before = {snapshot["time"] for snapshot in world.snapshots()}
    damage(world)
    assert world.backup().returncode == 1
    assert world.value("backup_verified") == 0
    assert before <= {snapshot["time"] for snapshot in world.snapshots()}


def damage(world, place: float = 0.3) -> None:
    pack = max((world.repository / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(pack.read_bytes())
    content[int(len(content) * place)] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)


# --- Messages of any size ---------------------------------------------------------------------------------------------------------


def huge(world, size: int) -> None:
    """The newest message: one line of header without an end, and as much text as a server takes."""
    path = box(world) / "new" / f"1800000000.M1P1.host,S={size}"
    with path.open("wb") as file:
        file.write(b"Message-ID: <huge@example.org>\nSubject: x\n\n")
        file.truncate(size)
    os.chown(path, 5000, 5000)


MANY = 50_000  # `make bench` measures with a million


@pytest.mark.large
def test_one_message_of_any_size_and_thousands_of_them_fit_into_the_pods_memory(world, memory_limit):
    volume = small_volume(world, "3g")  # in memory, where so many files are made in seconds
    try:
        fill(volume, ALICE, 3)
        huge(world, 200 << 20)
        many = box(world, SPAM) / "cur"
        many.mkdir(parents=True)
        (many.parent / "new").mkdir()
        for number in range(MANY):
            (many / f"1700000000.M{number}P1.host,S=21:2,S").write_bytes(b"Subject: %08d\n\nx\n" % number)
        subprocess.run(["chown", "-R", "5000:5000", str(volume)], check=True)
        with memory_limit(512 << 20) as within:
            world.within = within
            for run in (lambda: world.backup("--verify-parts", 50), world.drill):
                done = run()
                assert done.returncode == 0, done.stderr[-500:]
        assert world.gateway.value(DRILL, "mail_restore_messages") == MANY + 4
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)


def test_endless_headers_are_read_in_part_only(world):
    fill(world.root / "mail", ALICE, 3)
    path = box(world) / "cur" / "1800000000.M1P1.host:2,S"
    path.write_bytes(b"X-Long: " + b"a" * (3 << 20) + b"\nMessage-ID: <far@example.org>\n\nx\n")
    assert world.backup().returncode == 0
    manifest = json.loads((world.root / "manifest" / "manifest.json").read_text("utf-8"))
    assert manifest["mailboxes"][ALICE]["newest"]["message_id"] is None
    done = world.drill()
    assert done.returncode == 0, done.stderr
    assert re.search("cannot be searched for", done.stdout)


# --- Restore --------------------------------------------------------------------------------------------------------------------


def small_volume(world, size: str):
    """A mail volume of its own, so that it can be full."""
    volume = world.root / "mail"
    shutil.rmtree(volume)
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(volume)], check=True)
    return volume


@pytest.mark.parametrize("way", [("--into", "Restored"), (), ("--replace",)])
@pytest.mark.parametrize("go", [("--go",), ()])
def test_no_restore_fills_the_live_volume(world, way, go):
    volume = small_volume(world, "8m")
    try:
        made = fill(volume, ALICE, 250, size=20_000)
        assert world.backup().returncode == 0
        if not way:
            for path in made:
                path.unlink()
            (volume / "other").write_bytes(bytes(5 << 20))
        done = world.restore("--what", "mailbox", "--mailbox", ALICE, *way, *go)
        assert (done.returncode, "MiB free" in done.stderr) == (1, True), done.stderr
        assert not list(volume.rglob("*restored*"))
        assert not list(volume.glob(".before-restore-*"))
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)


def test_what_the_server_needs_to_take_mail_stays_free(world):
    volume = small_volume(world, "20m")
    try:
        fill(volume, ALICE, 100, size=20_000)
        assert world.backup().returncode == 0
        into = ("--what", "mailbox", "--mailbox", ALICE, "--into", "Restored", "--go")
        done = world.restore(*into, "--reserve", 17 << 20)
        assert (done.returncode, "17 MiB must stay free for new mail" in done.stderr) == (1, True)
        assert world.restore(*into, "--reserve", 1 << 20).returncode == 0
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)


def test_a_replace_beside_a_running_server_is_refused(world, gateway):
    made = fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    made[0].unlink()
    replace = ("--what", "mailbox", "--mailbox", ALICE, "--replace", "--go")
    done = world.restore(*replace, running=gateway.url.removeprefix("http://"))
    assert (done.returncode, "still answers" in done.stderr) == (1, True)
    lock = world.root / "state" / "spool-postfix" / "pid" / "master.pid"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = world.restore(*replace)
    assert (done.returncode, "Postfix still runs" in done.stderr) == (1, True)
    assert not made[0].exists()
    assert not list((world.root / "mail").glob(".before-restore-*"))


def test_a_server_cannot_start_in_the_middle_of_a_restore(world):
    fill(world.root / "mail", ALICE, 5)
    (world.root / "state" / "spool-postfix").mkdir()  # of a server that has not run yet
    assert world.backup().returncode == 0
    restic, go = world.slow_restic("restore")
    with ThreadPoolExecutor() as pool:
        restore = pool.submit(world.restore, "--what", "whole", "--go", "--restic", restic)
        while not (world.scratch / "waiting").exists():
            assert not restore.done(), restore.result().stderr
            time.sleep(0.01)
        with (world.root / "state" / "spool-postfix" / "pid" / "master.pid").open("r+") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        go.touch()
        assert restore.result().returncode == 0, restore.result().stderr


def test_a_whole_restore_empties_no_source_that_the_snapshot_does_not_know(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    keys = world.root / "keys"
    keys.mkdir()
    (keys / "secret.asc").write_text("key", encoding="utf-8")
    done = world.restore("--what", "whole", "--source", "keys", "--go")
    assert (done.returncode, "keys would be emptied or left out" in done.stderr) == (1, True)
    assert (keys / "secret.asc").exists()
    assert not list((world.root / "mail").glob(".before-restore-*"))


def test_a_whole_restore_holds_the_repository_against_a_prune(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    calls = world.key.with_name("calls")
    restic = world.key.with_name("noting-restic")
    restic.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec restic "$@"\n', encoding="utf-8")
    restic.chmod(0o755)
    assert world.restore("--what", "whole", "--go", "--restic", restic).returncode == 0
    (restore,) = [line for line in calls.read_text().splitlines() if " restore " in line]
    assert "--no-lock" not in restore


@pytest.mark.parametrize("live", ["later", "lost"])
@pytest.mark.parametrize("what", [("--what", "whole"), ("--what", "mailbox", "--mailbox", ALICE, "--replace")])
def test_no_uid_is_given_out_twice(world, tmp_path, authority, what, live):
    """A client that remembers: what it saw under a UID is never something else, and new mail is above what it has seen."""
    mail = world.root / "mail"

    def look(name: str, *, arrives: int = 0) -> tuple[bytes, int, dict[int, bytes]]:
        with dovecot(tmp_path / name, authority.issue(NAME), [ALICE]) as server:
            shutil.rmtree(server.mail)
            subprocess.run(["cp", "-a", str(mail), str(server.mail)], check=True)
            context = ssl.create_default_context(cadata=authority.certificate)
            context.check_hostname = False
            with imaplib.IMAP4_SSL("127.0.0.1", server.port, ssl_context=context) as session:
                session.login(ALICE, PASSWORD)
                for number in range(arrives):
                    session.append("INBOX", "", "", f"Subject: {name} {number}\n\nx\n".encode())
                session.select("INBOX")
                validity, following = (int(session.response(word)[1][0]) for word in ("UIDVALIDITY", "UIDNEXT"))
                rows = session.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
                seen = {int(re.search(rb"UID (\d+)", row[0])[1]): row[1] for row in rows if isinstance(row, tuple)}
            shutil.rmtree(mail)
            mail.mkdir()
            for path in server.mail.iterdir():
                subprocess.run(["cp", "-a", str(path), str(mail)], check=True)
        return validity, following, seen

    fill(mail, ALICE, 1)
    look("first", arrives=5)
    assert world.backup().returncode == 0
    validity, following, remembered = look("second", arrives=3)
    if live == "lost":
        for path in box(world).glob("dovecot*"):
            path.unlink()
    assert world.restore(*what, "--go").returncode == 0
    again, _, seen = look("third", arrives=2)
    assert again == validity
    fresh = {uid for uid, subject in seen.items() if b"third" in subject}
    assert len(fresh) == 2
    assert min(fresh) >= following
    assert all(remembered[uid] == seen[uid] for uid in remembered.keys() & seen.keys())


@pytest.mark.parametrize("what", [("--what", "whole"), ("--what", "mailbox", "--mailbox", ALICE, "--replace")])
def test_no_uid_is_given_out_twice_after_a_restore_that_broke_off(world, what):
    """What the first attempt had brought back is what the second one finds, and knows nothing of the UIDs since the snapshot."""
    fill(world.root / "mail", ALICE, 5)
    lists = [box(world) / "dovecot-uidlist", box(world) / ".Lost" / "dovecot-uidlist"]
    fill(world.root / "mail", ALICE, 1, folder=".Lost")
    for path in lists:
        path.write_text("3 V1 N7 G1\n", encoding="utf-8")
    assert world.backup().returncode == 0
    lists[0].write_text("3 V1 N900 G1\n", encoding="utf-8")
    lists[1].unlink()
    programs = world.key.with_name("programs")
    shutil.copytree(SCRIPTS, programs)
    program = programs / "restore.py"
    program.write_text(program.read_text("utf-8").replace(" raise_next_uids(", " raise ProblemError('broke off') if True else ("))
    world.programs = programs
    assert "broke off" in world.restore(*what, "--go").stderr
    assert lists[0].read_text() == "3 V1 N7 G1\n"
    world.programs = SCRIPTS
    time.sleep(1)  # what is moved aside has a second in its name
    done = world.restore(*what, "--go")
    assert done.returncode == 0, done.stderr
    assert lists[0].read_text() == "3 V1 N900 G1\n"
    assert lists[1].read_text() == "3 V1 N100007 G1\n"
    aside = [path.read_text() for path in (world.root / "mail").glob(".before-restore-*/example.org/alice/dovecot-uidlist")]
    assert sorted(aside) == ["3 V1 N7 G1\n", "3 V1 N900 G1\n"]


def test_a_message_that_was_marked_deleted_does_not_go_with_the_next_expunge(world):
    made = fill(world.root / "mail", ALICE, 4, flags="ST")
    assert world.backup().returncode == 0
    for path in made:
        path.unlink()
    assert world.restore("--what", "mailbox", "--mailbox", ALICE, "--go").returncode == 0
    assert {path.name.partition(":2,")[2] for path in (box(world) / "cur").iterdir()} == {"S", ""}


def test_what_retention_would_delete_again_is_not_put_where_it_does(world):
    fill(world.root / "mail", SPAM, 3)
    assert world.backup().returncode == 0
    shutil.rmtree(box(world, SPAM) / "cur")
    (box(world, SPAM) / "cur").mkdir()
    rule = ("--retention", f"{SPAM}|INBOX|automated|14", "--mailbox", SPAM, "--go")
    for more in (("--what", "mailbox"), ("--what", "message", "--message-id", "<1.spam@example.org>")):
        done = world.restore(*more, *rule)
        assert (done.returncode, "retention to delete them again" in done.stderr) == (1, True), done.stdout
        assert list((box(world, SPAM) / "cur").iterdir()) == []
    assert world.restore("--what", "mailbox", *rule, "--into", "Restored").returncode == 0
    other = ("--what", "mailbox", "--mailbox", SPAM, "--go", "--retention", f"{ALICE}|INBOX|any|1", "--retention", f"{SPAM}|Junk|any|1")
    assert world.restore(*other).returncode == 0


def test_restored_messages_are_for_their_owner_alone(world):
    made = fill(world.root / "mail", ALICE, 3)
    assert world.backup().returncode == 0
    for path in made:
        path.unlink()
    assert world.restore("--what", "mailbox", "--mailbox", ALICE, "--go").returncode == 0
    for path in (box(world) / "cur").iterdir():
        status = path.stat()
        assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o600, 5000, 5000)


def test_an_ambiguous_id_is_not_guessed(world, monkeypatch):
    """No two ids that begin alike can be made to order, so the choice is asked directly."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    restore, repository = importlib.import_module("restore"), importlib.import_module("repository")
    snapshots = [repository.Snapshot(f"abcdef12{digit}", 0.0, ("good",), "") for digit in "34"]

    class Two:
        def snapshots(self):
            return snapshots

    with pytest.raises(importlib.import_module("common").ProblemError, match="2 snapshots begin with abcdef12"):
        restore.choose(Two(), "abcdef12")
    assert restore.choose(Two(), "abcdef124").id == "abcdef124"


@pytest.mark.parametrize("what", [("--what", "mailbox", "--mailbox", ALICE), ("--what", "whole")])
def test_one_damaged_message_does_not_keep_the_others(world, what):
    made = fill(world.root / "mail", ALICE, 60, size=20_000)
    assert world.backup().returncode == 0
    damage(world)
    for path in made:
        path.unlink()
    done = world.restore(*what, "--go")
    assert done.returncode == 1
    assert "damaged in the repository, not restored: " in done.stderr
    there = [path for part in ("cur", "new") for path in (box(world) / part).iterdir()]
    assert len(there) == 59
    assert all("Message-ID" in path.read_text("utf-8") for path in there)


@pytest.mark.parametrize("what", [("--what", "mailbox", "--mailbox", ALICE), ("--what", "whole")])
def test_a_large_message_of_which_a_part_is_damaged_does_not_come_back_with_a_hole(world, what):
    """restic fills the hole with zeros: a file of the right size and with the right header, which every later backup would call good."""
    made = fill(world.root / "mail", ALICE, 5)
    large = fill(world.root / "mail", ALICE, 1, folder=".Large", size=40_000_000)[0]
    assert world.backup().returncode == 0
    damage(world, place=0.9)
    for path in (*made, large):
        path.unlink()
    done = world.restore(*what, "--go")
    assert (done.returncode, f"not restored: {large}" in done.stderr) == (1, True), done.stderr
    assert [path.name for path in (box(world) / ".Large").rglob("*S=*")] == []
    assert len([path for part in ("cur", "new") for path in (box(world) / part).iterdir()]) == 5


def test_a_wait_for_a_lock_of_another_program_ends(world, monkeypatch):
    fill(world.root / "mail", ALICE, 3)
    assert world.backup().returncode == 0
    place = ["--repo", str(world.repository), "--password-file", str(world.key), "--no-cache", "backup", "--stdin"]
    elsewhere = ["unshare", "--uts", "bash", "-c", 'hostname elsewhere; exec restic "$@"', "restic", *place]
    other = subprocess.Popen(elsewhere, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        # restic writes it under another name first, <id>-tmp-<number>.
        world.wait_for(lambda: any("-" not in path.name for path in (world.repository / "locks").iterdir()), other)
        monkeypatch.syspath_prepend(str(SCRIPTS))
        repository = importlib.import_module("repository")
        monkeypatch.setattr(repository, "LOCK_WAIT", 0)
        monkeypatch.setattr(repository, "LOCK_POLL", 0)
        restic = repository.Restic("restic", world.repository, world.key, world.scratch, host=JOB, root=world.root)
        with pytest.raises(importlib.import_module("common").ProblemError, match="locked by another program"):
            restic.free_locks()
    finally:
        other.kill()
        other.wait()


def test_every_part_of_the_repository_is_read_in_turn(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    part = importlib.import_module("backup").todays_part
    start = datetime(2026, 11, 21, tzinfo=UTC)
    assert {part(start + timedelta(days=day), 7) for day in range(8)} == {f"{number}/7" for number in range(1, 8)}
    weekly = {part(start + timedelta(days=7 * week), 7) for week in range(7)}
    assert len(weekly) == 7


def test_a_clock_that_differs_from_the_servers_is_refused(world, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    backup = importlib.import_module("backup")
    backup.check_server_clock(world.repository.parent)
    now = time.time()
    for wrong in (now + 5 * 365 * 86400, now - 2 * 3600):
        monkeypatch.setattr(backup.time, "time", lambda wrong=wrong: wrong)
        with pytest.raises(importlib.import_module("common").ProblemError, match="repository's server"):
            backup.check_server_clock(world.repository.parent)
