"""Restore and its drill with the real restic and Dovecot: what was there comes back, and what is missing is found."""

import fcntl
import imaplib
import os
import re
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from components.mail.image import VMAIL
from components.settings.mail import TESTED_IMAGE_MAJORS
from tests.lab.jobs.world import ALICE, JOB, SPAM, fill, state_of
from tools.lab.debian import below
from tools.lab.servers import NAME, PASSWORD, dovecot
from tools.offline.stackfile import ROOT


def mailbox_view(port: int, authority, address: str) -> dict:
    """UIDs, flags, dates and contents of every folder, and the subscriptions, as a client sees them."""
    context = ssl.create_default_context(cadata=authority.certificate)
    context.check_hostname = False
    view: dict = {}
    with imaplib.IMAP4_SSL("127.0.0.1", port, ssl_context=context) as session:
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
        context = ssl.create_default_context(cadata=authority.certificate)
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


def test_a_whole_restore_moves_aside_what_is_there_and_needs_a_stopped_server(world, gateway):
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
    assert world.value("backup_messages", mailbox=ALICE) == 5  # what was moved aside does not count as a mailbox


def test_a_whole_restore_leaves_the_live_queue_where_it_is(world):
    """Its mail was accepted and is in no snapshot: moved aside, it would never be delivered."""
    fill(world.root / "mail", ALICE, 5)
    queue = world.root / "state" / "spool-postfix" / "deferred"
    queue.mkdir(parents=True)
    (queue / "4F2A").write_text("accepted", encoding="utf-8")
    assert world.backup().returncode == 0
    assert world.restore("--what", "whole", "--go").returncode == 0
    assert (queue / "4F2A").read_text() == "accepted"
    assert len(list((world.root / "state").glob(".before-restore-*/lib-rspamd"))) == 1


def test_a_name_that_cannot_be_resolved_does_not_count_as_a_stopped_server(world):
    fill(world.root / "mail", ALICE, 5)
    assert world.backup().returncode == 0
    done = world.restore("--what", "whole", "--go", running="mailserver.invalid:993")
    assert (done.returncode, "cannot be resolved" in done.stderr) == (1, True)
    assert not list((world.root / "mail").glob(".before-restore-*"))


def test_a_server_that_runs_without_answering_is_refused(world):
    fill(world.root / "mail", ALICE, 5)
    lock = world.root / "state" / "spool-postfix" / "pid" / "master.pid"
    lock.parent.mkdir(parents=True)
    assert world.backup().returncode == 0
    with lock.open("w") as file:  # as Postfix's master does while it runs
        fcntl.flock(file, fcntl.LOCK_EX)
        done = world.restore("--what", "whole", "--go")
        assert (done.returncode, "Postfix still runs" in done.stderr) == (1, True)
        assert not list((world.root / "mail").glob(".before-restore-*"))
    assert world.restore("--what", "whole", "--go").returncode == 0


@pytest.mark.parametrize("mailbox", ["example.org", "../state@.", "*@example.org", "alice/../bob@example.org", "@example.org", ".@."])
def test_only_an_address_becomes_a_path(world, mailbox):
    done = world.restore("--what", "mailbox", "--mailbox", mailbox, "--replace", "--go")
    assert (done.returncode, "--mailbox: an address" in done.stderr) == (2, True)


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
        context = ssl.create_default_context(cadata=authority.certificate)
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


@pytest.mark.parametrize("more", [("--what", "message", "--message-id", "<2.alice@example.org>"), ("--what", "mailbox", "--into", "Old")])
def test_a_part_of_a_mailbox_that_is_gone_does_not_become_the_whole(world, more):
    fill(world.root / "mail", ALICE, 6)
    assert world.backup().returncode == 0
    shutil.rmtree(world.root / "mail" / "example.org" / "alice")
    done = world.restore(*more, "--mailbox", ALICE, "--go")
    assert (done.returncode, "is gone altogether" in done.stderr) == (1, True)
    assert not (world.root / "mail" / "example.org" / "alice").exists()


def test_a_replaced_mailbox_is_what_it_was(world):
    made = fill(world.root / "mail", ALICE, 6)
    uidlist = world.root / "mail" / "example.org" / "alice" / "dovecot-uidlist"
    uidlist.write_text("3 V1 N7 G1\n", encoding="utf-8")
    assert world.backup().returncode == 0
    before = state_of(world.root / "mail")
    made[0].unlink()
    uidlist.write_text("3 V1 N9 G1\n", encoding="utf-8")
    assert world.restore("--what", "mailbox", "--mailbox", ALICE, "--replace", "--go").returncode == 0
    after = state_of(world.root / "mail")
    name = str(uidlist.relative_to(world.root / "mail"))
    assert after.pop(name)[0] == b"3 V1 N9 G1\n"  # no UID is given out twice
    assert after == {path: state for path, state in before.items() if path != name}


def test_a_message_that_was_moved_aside_is_not_there_already(world):
    made = fill(world.root / "mail", ALICE, 6)
    made[5].unlink()
    assert world.backup().returncode == 0
    world.earlier(days=2)
    fill(world.root / "mail", ALICE, 6)
    assert world.backup().returncode == 0
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400))
    assert world.restore("--what", "mailbox", "--mailbox", ALICE, "--replace", "--at", day, "--go").returncode == 0
    assert not made[5].exists()
    done = world.restore("--what", "mailbox", "--mailbox", ALICE, "--go")
    assert "1 of 6 messages are to be added" in done.stdout


# --- the drill ----------------------------------------------------------------------------------------------------------------


# A job in another Debian: its own files with a layer in memory above, and of this one the folders that a job of the tests reads.
IN_DEBIAN = """
set -e
debian=$1 checkout=$2
shift 3  # the interpreter, too, which is this Debian's
layer=/mnt  # in a mount namespace of its own
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay -o "lowerdir=$debian,upperdir=$layer/upper,workdir=$layer/work" overlay "$layer/root"
for path in /dev /proc /tmp "$checkout"; do mkdir -p "$layer/root$path"; mount --bind "$path" "$layer/root$path"; done
cp "$(command -pv restic)" "$layer/root/usr/bin/"
exec chroot "$layer/root" python3 "$@"
"""


def in_debian_of(major: str) -> tuple[str, ...]:
    debian = below(major)
    if debian == Path("/"):
        return ()
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", IN_DEBIAN, "debian", str(debian), str(ROOT))


def test_the_drill_counts_with_dovecot_and_leaves_nothing_behind(world, major):
    fill(world.root / "mail", ALICE, 12)
    fill(world.root / "mail", ALICE, 3, folder=".Sent")
    fill(world.root / "mail", SPAM, 7)
    assert world.backup().returncode == 0
    began = time.time()
    world.within = in_debian_of(major)
    done = world.drill("--dovecot", TESTED_IMAGE_MAJORS[major])
    assert done.returncode == 0, done.stderr
    assert f"{ALICE}: fetched its newest message" in done.stdout
    group = world.gateway.groups["mail-restore-drill"]
    assert group["mail_restore_messages"][()] == 22
    assert group["mail_restore_success"][()] == 1
    assert began <= group["mail_restore_last_success_timestamp"][()] <= time.time()
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


def test_the_drill_misses_a_small_mailbox_too(world):
    fill(world.root / "mail", ALICE, 40)
    for path in fill(world.root / "mail", SPAM, 3):
        path.write_text("Subject: no Message-ID to look for\n\nx\n", encoding="utf-8")
    assert world.backup().returncode == 0
    shutil.rmtree(world.root / "mail" / "example.org" / "spam")
    world.restic("backup", "--host", JOB, "--tag", "good", *(str(world.root / name) for name in ("mail", "state", "manifest")))
    done = world.drill()
    assert (done.returncode, f"{SPAM} has 0 of 3 messages" in done.stderr) == (1, True)
    assert world.gateway.value("mail-restore-drill", "mail_restore_success") == 0


def test_the_drill_finds_a_newest_message_that_cannot_be_fetched(world):
    made = fill(world.root / "mail", ALICE, 40)
    assert world.backup().returncode == 0
    newest = max(made, key=lambda path: path.stat().st_mtime)
    text, status = "Subject: another\n\nx\n", newest.stat()
    newest.write_text(text, encoding="utf-8")
    os.utime(newest, ns=(status.st_atime_ns, status.st_mtime_ns))
    newest.rename(newest.with_name(re.sub(r"S=\d+", f"S={len(text)}", newest.name)))
    world.restic("backup", "--host", JOB, "--tag", "good", *(str(world.root / name) for name in ("mail", "state", "manifest")))
    done = world.drill()
    assert (done.returncode, "does not find the newest message" in done.stderr) == (1, True), done.stderr


def test_a_drill_without_a_backup_fails(world):
    assert world.drill().returncode == 1


def test_a_message_id_of_any_kind_does_not_stop_the_drill(world):
    """An external sender chooses it, and the catch-all mailbox takes it."""
    made = fill(world.root / "mail", ALICE, 5)
    newest = max(made, key=lambda path: path.stat().st_mtime)
    status = newest.stat()
    newest.write_bytes(newest.read_bytes().replace(b"Message-ID: <", b"Message-ID: <\xe9"))
    renamed = newest.with_name(newest.name.partition(",S=")[0] + f",S={newest.stat().st_size}" + newest.name[newest.name.find(":2,") :])
    newest.rename(renamed)
    os.utime(renamed, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert world.backup().returncode == 0
    done = world.drill()
    assert done.returncode == 0, done.stderr
    assert world.gateway.value("mail-restore-drill", "mail_restore_messages") == 5


def test_a_full_volume_is_reported_before_anything_is_touched(world):
    fill(world.root / "mail", ALICE, 5)
    volume = world.root / "state"
    shutil.rmtree(volume)
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(volume)], check=True)
    try:
        (volume / "statistics").write_bytes(os.urandom(5 << 20))
        assert world.backup().returncode == 0
        before = state_of(world.root)
        done = world.restore("--what", "whole", "--go")
        assert done.returncode == 1
        assert "5 MiB of state would be written, but the volume has 3 MiB free" in done.stderr
        assert state_of(world.root) == before
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)
