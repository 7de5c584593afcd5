"""Retention against a real Dovecot: what goes, what stays, and when nothing may go."""

import imaplib
import os
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from components.mail.image import VMAIL
from tests.lab.jobs.world import SCRIPTS
from tools.lab.hosts import slowness
from tools.lab.servers import NAME, PASSWORD, dovecot, silent_server

SPAM = "spam@example.org"
DAY, HOURS = 86400, 3600
RULES = ("--rule", f"{SPAM}|INBOX|automated|14", "--rule", f"{SPAM}|INBOX|human|90")

# Header, age in seconds, never opened, whether it stays.
TABLE = {
    "automated, two hours short": ("List-Unsubscribe: <https://x>", 14 * DAY - 2 * HOURS, False, True),
    "automated, two hours over": ("List-Unsubscribe: <https://x>", 14 * DAY + 2 * HOURS, False, False),
    "human, two hours short": ("X-Nothing: special", 90 * DAY - 2 * HOURS, False, True),
    "human, two hours over": ("X-Nothing: special", 90 * DAY + 2 * HOURS, False, False),
    "human of fifteen days": ("X-Nothing: special", 15 * DAY, False, True),
    "bulk": ("Precedence: bulk", 15 * DAY, False, False),
    "list": ("Precedence: list", 15 * DAY, False, False),
    "junk": ("precedence: JUNK", 15 * DAY, False, False),
    "first-class is not bulk": ("Precedence: first-class", 15 * DAY, False, True),
    "folded bulk": ("Precedence:\n bulk", 15 * DAY, False, False),
    "folded unsubscribe": ("List-Unsubscribe:\n <mailto:x@y>,\n <https://x>", 15 * DAY, False, False),
    "auto-generated": ("Auto-Submitted: auto-generated", 15 * DAY, False, False),
    "not automated by its own word": ("Auto-Submitted: no", 15 * DAY, False, True),
    "never opened, automated, over": ("List-Unsubscribe: <https://x>", 14 * DAY + 2 * HOURS, True, False),
    "never opened, automated, short": ("List-Unsubscribe: <https://x>", 14 * DAY - 2 * HOURS, True, True),
    "never opened, human, over": ("X-Nothing: special", 91 * DAY, True, False),
    "header in the body only": ("X-Nothing: special\n\nPrecedence: bulk", 15 * DAY, False, True),
}


@pytest.fixture
def passwords(tmp_path):
    folder = tmp_path / "passwords"
    folder.mkdir()
    (folder / "spam_at_example.org").write_text(PASSWORD, encoding="utf-8")
    return folder


@pytest.fixture
def keep(job, imap, gateway, passwords):
    def run(*arguments, rules=RULES, environment=None, **others):
        limits = {"max-messages": 500, "max-share": 90, **others}
        options = [text for name, value in limits.items() for text in (f"--{name}", value)]
        place = ("--job", "spam-retention", "--name", NAME, "--address", "127.0.0.1", "--port", imap.port, "--passwords", passwords)
        done = job("retention.py", *place, *rules, "--pushgateway", gateway.url, *options, *arguments, environment=environment)
        assert PASSWORD not in done.stdout + done.stderr
        return done

    return run


def message(header: str, name: str = "x") -> bytes:
    return f"From: a@b.example\nSubject: {name}\nMessage-ID: <{name.replace(' ', '-')}@test>\n{header}\n\nbody\n".encode()


def subjects(imap, address: str = SPAM) -> set[str]:
    return {line[9:].strip() for path in imap.messages(address) for line in path.read_text().splitlines() if line.startswith("Subject:")}


def fill(imap, count: int, header: str = "Precedence: bulk", age: float = 20 * DAY, prefix: str = "m") -> None:
    for number in range(count):
        imap.deliver(SPAM, message(header, f"{prefix}{number}"), age=age)


def test_each_message_goes_or_stays_by_class_and_age(imap, gateway, keep):
    for name, (header, age, unopened, _) in TABLE.items():
        imap.deliver(SPAM, message(header, name), age=age, flags=None if unopened else "S")
    done = keep()
    assert done.returncode == 0, done.stderr
    assert subjects(imap) == {name for name, (*_, stays) in TABLE.items() if stays}
    gone = [name for name, (*_, stays) in TABLE.items() if not stays]
    human = sum(TABLE[name][0].startswith("X-Nothing") for name in gone)
    values = {
        name: gateway.value("spam-retention", f"spam_retention_{name}", mailbox=SPAM)
        for name in ("scanned_total", "auto_deleted_total", "human_deleted_total", "kept_total", "errors_total")
    }
    assert values == {
        "scanned_total": len(TABLE),
        "auto_deleted_total": len(gone) - human,
        "human_deleted_total": human,
        "kept_total": len(TABLE) - len(gone),
        "errors_total": 0,
    }


def test_a_dry_run_counts_and_deletes_nothing(imap, gateway, keep):
    fill(imap, 5)
    done = keep("--dry-run")
    assert done.returncode == 0
    assert len(imap.messages(SPAM)) == 5
    assert "auto_deleted 5" in done.stdout
    assert gateway.value("spam-retention", "spam_retention_auto_deleted_total", mailbox=SPAM) == 0


def test_above_the_share_nothing_is_deleted_and_the_run_fails(imap, gateway, keep):
    fill(imap, 30)
    fill(imap, 10, header="X-Nothing: special", prefix="human")
    done = keep(**{"max-share": 50})
    assert done.returncode == 1
    assert "more than 50 %" in done.stdout
    assert len(imap.messages(SPAM)) == 40
    assert gateway.value("spam-retention", "spam_retention_errors_total", mailbox=SPAM) == 1
    assert "spam_retention_last_success_timestamp" not in gateway.groups["spam-retention"]
    assert "spam_retention_auto_deleted_total" not in gateway.groups["spam-retention"]


def test_above_the_number_the_oldest_go_first_and_the_rest_is_reported(imap, gateway, keep):
    """An external sender could otherwise stop retention for good, with one message more than the limit."""
    for number in range(40):
        imap.deliver(SPAM, message("Precedence: bulk", f"m{number}"), age=(60 - number) * DAY // 2 - HOURS)
    fill(imap, 20, header="X-Nothing: special", prefix="human")
    for round_, left in enumerate((range(15, 32), range(30, 32))):
        done = keep(**{"max-messages": 15})
        assert done.returncode == 0, done.stdout
        assert {name for name in subjects(imap) if name.startswith("m")} == {f"m{number}" for number in (*left, *range(32, 40))}
        assert gateway.value("spam-retention", "spam_retention_due_total", mailbox=SPAM) == len(left)
        assert gateway.value("spam-retention", "spam_retention_auto_deleted_total", mailbox=SPAM) == 15, round_


def test_at_the_share_it_deletes(imap, keep):
    fill(imap, 30)
    assert keep(**{"max-share": 99}).returncode == 1  # all of them is more than 99 %
    fill(imap, 1, header="X-Nothing: special", prefix="human")
    assert keep(**{"max-share": 99}).returncode == 0
    assert subjects(imap) == {"human0"}


def test_starred_mail_stays_however_old(imap, keep):
    fill(imap, 3)
    imap.deliver(SPAM, message("Precedence: bulk", "starred"), age=400 * DAY, flags="FS")
    assert keep().returncode == 0
    assert subjects(imap) == {"starred"}


def test_a_message_under_two_rules_is_counted_once(imap, gateway, keep):
    fill(imap, 5)
    fill(imap, 20, header="X-Nothing: special", prefix="human", age=2 * DAY)
    assert keep(rules=("--rule", f"{SPAM}|INBOX|automated|14", "--rule", f"{SPAM}|INBOX|any|10")).returncode == 0
    values = [
        gateway.value("spam-retention", f"spam_retention_{kind}_total", mailbox=SPAM) for kind in ("auto_deleted", "human_deleted", "kept")
    ]
    assert values == [5, 0, 20]


@pytest.mark.parametrize(("days", "left"), [(-30, 5), (30, 5), (0, 0)])
def test_one_wrong_clock_makes_no_mail_old(imap, keep, tmp_path, days, left):
    """With a clock that is years ahead, the server or this node would find everything due."""
    for number in range(5):
        imap.deliver(SPAM, message("Precedence: bulk", f"m{number}"), age=(20 if days <= 0 else 5) * DAY)
    (tmp_path / "sitecustomize.py").write_text(
        f"import time; real = time.time; time.time = lambda: real() + {days} * 86400", encoding="utf-8"
    )
    done = keep(environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stdout
    assert len(imap.messages(SPAM)) == left


def test_a_run_that_could_not_be_reported_is_a_failure(imap, gateway, keep):
    gateway.broken = 100
    done = keep()
    assert (done.returncode, "Pushgateway: failed" in done.stderr) == (1, True)


@pytest.mark.parametrize("password", ["geheimnisvoll-ä ñ", "ends with a line break"])
def test_any_password_logs_in(tmp_path, authority, gateway, job, passwords, password):
    with dovecot(tmp_path / "server", authority.issue(NAME), [SPAM]) as server:
        (server.folder / "users").write_text(f"{SPAM}:{password}\n", encoding="utf-8")
        (passwords / "spam_at_example.org").write_text(f"{password}\n", encoding="utf-8")
        place = ("--job", "spam-retention", "--name", NAME, "--address", "127.0.0.1", "--port", server.port, "--passwords", passwords)
        done = job("retention.py", *place, *RULES, "--max-messages", 5, "--max-share", 50)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("ability", ["UIDPLUS", "WITHIN"])
def test_a_server_that_lacks_an_ability_is_refused(tmp_path, authority, job, gateway, passwords, ability):
    """Without UIDPLUS an EXPUNGE would take others' mail along; without WITHIN every search fails."""
    with dovecot(tmp_path / "server", authority.issue(NAME), [SPAM]) as server:
        config = server.folder / "dovecot.conf"
        able = "IMAP4rev1 SASL-IR LITERAL+ UIDPLUS WITHIN".replace(ability, "").strip()
        config.write_text(f"{config.read_text()}\nimap_capability = {able}\n")
        subprocess.run(["doveadm", "-c", str(config), "reload"], check=True, capture_output=True)
        fill(server, 3)
        place = ("--job", "spam-retention", "--name", NAME, "--address", "127.0.0.1", "--port", server.port, "--passwords", passwords)
        done = job("retention.py", *place, *RULES, "--max-messages", 50, "--max-share", 99)
        assert (done.returncode, f"the server lacks {ability}" in done.stdout) == (1, True), done.stdout
        assert len(server.messages(SPAM)) == 3


def test_a_deadline_is_reported(imap, gateway, job, passwords):
    with silent_server() as port:
        place = ("--job", "spam-retention", "--name", NAME, "--address", "127.0.0.1", "--port", str(port), "--passwords", str(passwords))
        command = [sys.executable, "-B", str(SCRIPTS / "retention.py"), *place, *RULES, "--max-messages", "5", "--max-share", "50"]
        process = subprocess.Popen([*command, "--pushgateway", gateway.url], stdout=subprocess.PIPE, text=True)
        tries = 0
        while not Path(f"/proc/{process.pid}/net/tcp").read_text().count(f":{port:04X} 01") and tries < 3000:
            tries += 1
            time.sleep(0.02)
        process.terminate()
        said, _ = process.communicate()
    assert process.returncode == 1
    assert "ended from outside" in said
    assert gateway.value("spam-retention", "spam_retention_errors_total", mailbox=SPAM) == 1


def test_mail_that_another_client_marked_for_deletion_is_not_taken_along(imap, keep):
    fill(imap, 3)
    imap.deliver(SPAM, message("X-Nothing: special", "undecided"), flags="ST")
    assert keep().returncode == 0
    assert subjects(imap) == {"undecided"}


def test_an_open_session_is_told_and_keeps_working(imap, authority, keep):
    fill(imap, 4)
    imap.deliver(SPAM, message("X-Nothing: special", "stays"))
    context = ssl.create_default_context(cadata=authority.certificate)
    context.check_hostname = False
    with imaplib.IMAP4_SSL("127.0.0.1", imap.port, ssl_context=context, timeout=10) as session:
        session.login(SPAM, PASSWORD)
        assert session.select("INBOX")[1] == [b"5"]
        assert keep().returncode == 0
        session.noop()
        assert session.untagged_responses.get("EXPUNGE") or session.response("EXPUNGE")[1] != [None]
        kind, data = session.fetch("1", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        assert kind == "OK"
        assert b"stays" in data[0][1]
    assert "Error" not in imap.log()
    assert "Panic" not in imap.log()


def test_mail_that_arrives_meanwhile_is_not_lost(imap, keep):
    fill(imap, 300)
    stop, delivered = threading.Event(), []

    def go_on():
        while not stop.is_set():
            delivered.append(f"fresh{len(delivered)}")
            imap.deliver(SPAM, message("Precedence: bulk", delivered[-1]), flags=None)
            time.sleep(0.002)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        done = keep(**{"max-share": 99})
    finally:
        stop.set()
        thread.join()
    assert done.returncode == 0, done.stdout
    assert len(delivered) > 5
    assert subjects(imap) == set(delivered)


def test_many_scattered_messages_go_in_commands_that_the_server_accepts(imap, keep):
    for number in range(1300):  # every other one stays, so that no range joins two
        imap.deliver(SPAM, message("Precedence: bulk" if number % 2 else "X-Nothing: special", f"m{number}"), age=20 * DAY)
    assert keep(**{"max-messages": 5000}).returncode == 0
    assert len(imap.messages(SPAM)) == 650


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("password", "refused its password"),
        ("no password", "no password for it"),
        ("folder", "there is no folder Nirgends"),
        ("server", "IMAP: "),
    ],
)
def test_what_cannot_be_done_is_reported_and_counted(imap, gateway, keep, passwords, change, words):
    fill(imap, 2)
    rules = RULES
    if change == "password":
        (passwords / "spam_at_example.org").write_text("wrong", encoding="utf-8")
    elif change == "no password":
        (passwords / "spam_at_example.org").unlink()
    elif change == "folder":
        rules = ("--rule", f"{SPAM}|Nirgends|any|1")
    else:
        imap.process.terminate()
        imap.process.wait(10 * slowness())
    done = keep(rules=rules)
    assert done.returncode == 1
    assert words in done.stdout
    assert len(imap.messages(SPAM)) == 2
    assert gateway.value("spam-retention", "spam_retention_errors_total", mailbox=SPAM) == 1


def test_an_expired_certificate_gets_no_password(tmp_path, authority, gateway, job, passwords):
    with dovecot(tmp_path / "expired", authority.issue(NAME, days=-1), [SPAM]) as server:
        place = ("--job", "spam-retention", "--name", NAME, "--address", "127.0.0.1", "--port", server.port, "--passwords", passwords)
        done = job("retention.py", *place, *RULES, "--max-messages", 5, "--max-share", 50)
        assert done.returncode == 1
        assert "SSLCertVerificationError" in done.stdout
        assert "Login" not in server.log()


def test_the_mail_store_belongs_to_the_mail_user_afterwards(imap, keep):
    fill(imap, 3)
    assert keep(**{"max-share": 99}).returncode == 0
    owners = {path.stat().st_uid for path in imap.maildir(SPAM).rglob("*")}
    assert owners == {VMAIL}
    assert os.getuid() == 0
