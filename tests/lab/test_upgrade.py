"""From docker-mailserver 15 to 16 and back, on one volume: what is served afterwards is what was there."""

import contextlib
import imaplib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import UserError
from tests.lab.alone import deliver, imap, pod_alone
from tests.lab.support import image, lab_site, lessons
from tools.lab.debian import below
from tools.lab.hosts import wait_for
from tools.lab.image import MailServer

VOLUME = ("/var/mail", "/var/lib/redis", "/state")
SIEVE = 'require "fileinto";\nif header :contains "Subject" "sorted" { fileinto "Lists"; }\n'
DAEMONS = ("rsyslog", "dovecot", "rspamd-redis", "rspamd")


@contextlib.contextmanager
def server(major: str, folder: Path, volume: Path) -> Iterator[MailServer]:
    """The pod of a major version on the volume, which it leaves as it was when its daemons had ended."""
    with pod_alone(folder, lab_site(image(major) | {"mail/mailboxes/alice@example.org/quota": "1Mi"})) as pod:
        host = pod.host
        for path in VOLUME:
            if (volume / path.lstrip("/")).exists():
                host.run("rm", "-rf", path)
                host.run("mkdir", "-p", str(Path(path).parent))
                _copy(volume / path.lstrip("/"), host.path(path))
        pod.assemble()
        pod.set_up()
        host.run("chown", "-R", "redis:redis", "/var/lib/redis")  # as the image does: the user's number is another
        pod.start(*DAEMONS)
        wait_for("Dovecot and Rspamd", lambda: pod.listening(993, 11334), 60)
        yield pod
        pod.stop("rspamd", "rspamd-redis", "dovecot")
        for path in VOLUME:
            shutil.rmtree(volume / path.lstrip("/"), ignore_errors=True)
            _copy(host.path(path), volume / path.lstrip("/"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def _names(rows: list) -> list[str]:
    return [row.decode().rpartition(' "." ')[2].strip('"') for row in rows]


def state(pod: MailServer) -> dict[str, tuple[str, dict[str, tuple[str, str]]]]:
    """UIDVALIDITY, and each message's flags and subject by UID, of every folder.

    Under `subscribed` the names of those, under `quota` use and limit.
    """
    found = {}
    with imap(pod) as session:
        (rows,) = session.getquotaroot("INBOX")[1][1:]
        found["quota"] = (re.sub(rb"^.* \(", b"(", rows[0]).decode(), {})
        found["subscribed"] = (" ".join(sorted(_names(session.lsub()[1]))), {})
        for folder in _names(session.list()[1]):
            session.select(folder, readonly=True)
            validity = session.response("UIDVALIDITY")[1][0].decode()
            rows = session.uid("fetch", "1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
            messages = {}
            for row in rows:
                if isinstance(row, tuple):
                    (uid,), flags = re.findall(rb"UID (\d+)", row[0]), imaplib.ParseFlags(row[0])
                    kept = sorted(flag.decode() for flag in flags if flag != b"\\Recent")
                    messages[uid.decode()] = (" ".join(kept), row[1].decode().strip())
            found[folder] = (validity, messages)
    return found


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        below("16")
    except UserError as reason:
        pytest.skip(f"docker-mailserver 16 has no Debian here: {reason}")
    return tmp_path_factory.mktemp("volume")


def test_everything_is_served_after_the_upgrade_and_after_the_way_back_but_for_what_the_filter_learned(
    volume: Path, tmp_path: Path
) -> None:
    with server("15", tmp_path / "before", volume) as pod:
        pod.host.write("/var/mail/example.org/alice/home/.dovecot.sieve", SIEVE)
        pod.host.run("chown", "-R", "docker:docker", "/var/mail")
        for subject in ("one", "two", "sorted three", "four"):
            deliver(pod, subject)
        with imap(pod) as session:
            session.select("INBOX")
            session.store("1", "+FLAGS", r"(\Seen \Flagged $Label1)")
            session.store("2", "+FLAGS", r"(\Deleted)")
            session.expunge()
            session.subscribe("Lists")
        pod.host.run("rspamc", "-h", "127.0.0.1:11334", "learn_spam", stdin=f"Subject: pills\r\n\r\n{'cheap pills now ' * 40}\r\n")
        learned = lessons(pod)
        before = state(pod)
    assert set(before) >= {"INBOX", "Lists", "Junk"}
    assert [list(messages) for _, messages in (before["INBOX"], before["Lists"])] == [["1", "3"], ["1"]]
    assert learned > 0

    with server("16", tmp_path / "after", volume) as pod:
        assert state(pod) == before
        assert lessons(pod) == learned
        deliver(pod, "sorted five")
        with imap(pod) as session:
            session.select("INBOX")
            session.store("2", "+FLAGS", r"(\Answered)")
        after = state(pod)
        assert list(after["Lists"][1]) == ["1", "2"]
        assert after["INBOX"][1]["3"][0] == r"\Answered"

    with server("15", tmp_path / "back", volume) as pod:
        assert state(pod) == after
        assert "RDB format version" in pod.daemons["rspamd-redis"].output.read_text()
        assert [line for line in pod.log().splitlines() if re.search(r"dovecot.*(Error|Panic|Fatal)", line)] == []
