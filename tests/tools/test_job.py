"""A job started by hand, with a stand-in for kubectl that answers like a real cluster."""

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import UserError
from tools.commands.job import manifest, start
from tools.offline.stackfile import ROOT

POD = {"containers": [{"name": "restore"}]}
JOB = {"kind": "Job", "metadata": {"name": "mail-restore-1", "namespace": "mailserver"}, "spec": {"template": {"spec": POD}}}
KUBECTL = """\
#!/bin/sh
echo "$*" >> {folder}/calls
case "$*" in
  *create*) cat > {folder}/created; {create} ;;
  *logs*) {logs} ;;
  *delete*) {delete} ;;
  *"get job"*) echo '{{"status": {{"conditions": [{{"type": "{condition}", "status": "True"}}]}}}}' ;;
esac
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`cluster(condition="Failed")`: what kubectl does and says from here on; the folder of what it was asked."""

    def become(*, create: str = "true", logs: str = "echo 3 mailboxes", condition: str = "Complete", delete: str = "true") -> Path:
        (tmp_path / "kubectl").write_text(KUBECTL.format(folder=tmp_path, create=create, logs=logs, condition=condition, delete=delete))
        (tmp_path / "kubectl").chmod(0o755)
        return tmp_path

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return become


@pytest.mark.parametrize(("condition", "code", "word"), [("Complete", 0, "succeeded"), ("Failed", 1, "failed")])
def test_the_result_is_the_jobs(cluster, capfd, condition, code, word):
    folder = cluster(condition=condition)
    assert start(JOB, "home") == code
    assert capfd.readouterr().out.splitlines()[1:] == ["3 mailboxes", f"job mail-restore-1 {word}"]
    assert all(line.startswith("--context home ") for line in (folder / "calls").read_text().splitlines())


def test_a_restore_gets_its_arguments_also_before_the_container_that_loads_its_dump(recording):
    started = manifest(recording("prod").kubernetes(), "webmail-restore", ["--what", "whole", "--go"], "1")
    pod = started["spec"]["template"]["spec"]
    taking = [c["name"] for c in (*pod["initContainers"], *pod["containers"]) if c["command"][-3:] == ["--what", "whole", "--go"]]
    assert taking == ["restore", "database"]


def test_a_job_that_failed_without_a_log_is_not_waited_for(cluster):
    cluster(logs="exit 1", condition="Failed")
    assert start(JOB, None) == 1


def test_the_clusters_refusal_is_shown(cluster):
    cluster(create="echo 'Error from server (Forbidden): no' >&2; exit 1")
    with pytest.raises(UserError, match="Forbidden"):
        start(JOB, None)


def test_a_job_continues_after_ctrl_c(cluster, capfd):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored
    folder = cluster(logs="kill -INT $PPID; sleep 1")
    assert start(JOB, None) == 130
    assert "job mail-restore-1 continues" in capfd.readouterr().out
    assert "delete" not in (folder / "calls").read_text()


@pytest.mark.parametrize(("delete", "word"), [("true", "it was deleted"), ("exit 1", "IT STILL EXISTS AND MAY RUN LATER")])
def test_a_job_whose_pod_does_not_come_does_not_run_later(cluster, monkeypatch, delete, word):
    """A whole restore that starts when a person has started the server again would move its mail away."""
    folder = cluster(logs="exit 1", condition="Suspended", delete=delete)
    monkeypatch.setattr("tools.commands.job.START_SECONDS", 0.01)
    with pytest.raises(UserError, match=word):
        start(JOB, None)
    assert "delete job mail-restore-1 --cascade=foreground" in (folder / "calls").read_text()


def typed(*words: str) -> list[str]:
    """What `make` would run for these words."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    make = ["make", "--dry-run", "--old-file", ".venv/.locked", *words]
    return shlex.split(subprocess.check_output(make, cwd=ROOT, env=environment, text=True).replace("\\\n", " "))


def test_make_hands_on_what_a_person_types():
    given = {"MESSAGE_ID": "<0037$abc$1.'x'@$(host>", "MAILBOX": "o'neill@example.org", "INTO": "Old $mail"}
    words = typed("restore", *(f"{name}={text}" for name, text in given.items()))
    assert [words[words.index(f"--{name.lower().replace('_', '-')}") + 1] for name in given] == list(given.values())


def test_every_command_of_the_restore_runbook_is_understood_in_the_pod(recording, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "pod"))
    parse = importlib.import_module("restore").parse
    lines = re.findall(r"make ((?:restore|job) [^`\n#]+)", (ROOT / "docs" / "runbooks" / "restore.md").read_text("utf-8"))
    assert len(lines) > 8
    for line in lines:
        words = typed(*shlex.split(line))
        split = words.index("--")
        name = words[words.index("job") + 1]
        job = manifest(recording("prod").kubernetes(), name, words[split + 1 :], "x")
        program, *arguments = job["spec"]["template"]["spec"]["containers"][-1]["command"][2:]
        if program.endswith("/restore.py"):
            monkeypatch.setattr(sys, "argv", [program, *arguments])
            assert parse().what in line or "WHAT" not in line
