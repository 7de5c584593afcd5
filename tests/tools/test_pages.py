"""Every `make …` and `kubectl …` of the documentation: real make and kubectl read each one, and the names in it are production's."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import click
import pytest

from components.names import MAIL_SERVER
from tools.__main__ import main
from tools.commands.job import manifest
from tools.offline.stackfile import ROOT

PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
# Mentions of a command without what it is applied to.
MENTIONS = {"kubectl auth can-i", "kubectl exec", "kubectl logs --previous", "make init"}
KINDS = {
    "deployment": "Deployment",
    "deploy": "Deployment",
    "cronjob": "CronJob",
    "pvc": "PersistentVolumeClaim",
    "externalsecret": "ExternalSecret",
}


def commands(program: str) -> dict[str, str]:
    """Each command line of `program` in the pages, with the page it is in; what a reader fills in is `x`."""
    found = {}
    for page in PAGES:
        text = page.read_text("utf-8").replace("\\\n", " ").replace("&lt;", "<")
        lines = re.findall(r"^(?: {4,}|\t)(.+)$", text, re.MULTILINE) + re.findall(r"`([^`]+)`", text)
        for line in lines:
            if match := re.match(rf"(?:[A-Z_]+=\S+ )*({program} .+)", line):
                command = re.sub(r"<[^<>]+>|…", "x", match[1].replace("\\|", "|"))
                found.setdefault(first_of_pipe(command), page.relative_to(ROOT).as_posix())
    return {command: page for command, page in found.items() if command not in MENTIONS}


def first_of_pipe(line: str) -> str:
    """The command up to a pipe, a redirection, a comment or the next command."""
    match = re.match(r"""(?:[^|;&<>#'"]|'[^']*'|"[^"]*")*""", line)
    assert match
    return match[0].strip()


@pytest.fixture(scope="module")
def manifests(request):
    from tests.conftest import recording_of, settings

    return recording_of(json.dumps(settings("prod")), "prod").kubernetes()


def dry_run(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--dry-run", "-o", ".venv/.locked", *words]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)


def without(words: list[str], name: str) -> list[str]:
    return [word for word in words if not word.startswith(f"{name}=")]


MAKE = commands("make")
KUBECTL = commands("kubectl")


def test_the_pages_have_commands():
    assert {"docs/runbooks/restore.md", "docs/runbooks/rotation.md", "README.md"} <= {*MAKE.values(), *KUBECTL.values()}


@pytest.mark.parametrize("line", MAKE)
def test_make_knows_target_and_variables_and_the_tool_its_options(line):
    words = shlex.split(line)[1:]
    typed = dry_run(*words)
    assert typed.returncode == 0, typed.stderr
    for name, given in (word.split("=", 1) for word in words if "=" in word):
        others = without(words, name)
        assert dry_run(*others, f"{name}=another").stdout != dry_run(*others).stdout, f"{name} changes nothing (here {given!r})"
    for started in re.findall(r"^\.venv/bin/python -m tools (.+)$", typed.stdout.replace("\\\n", " "), re.MULTILINE):
        name, *arguments = shlex.split(started)
        command = main.get_command(click.Context(main), name)
        assert command is not None
        command.make_context(name, arguments)  # raises on an option or a value that it does not know


@pytest.mark.parametrize("line", [line for line in MAKE if re.match(r"make (job|restore)\b", line)])
def test_jobs_and_their_arguments_exist(line, manifests):
    typed = dry_run(*shlex.split(line)[1:]).stdout.replace("\\\n", " ")
    job, *words = shlex.split(typed.partition("tools job ")[2])
    jobs = {thing["metadata"]["name"]: thing for thing in manifests if thing["kind"] == "CronJob"}
    if job == "x":
        return
    assert job in jobs, f"{job}: production has {', '.join(jobs)}"
    arguments = words[words.index("--") + 1 :]
    pod = manifest(manifests, job, arguments, "1")["spec"]["template"]["spec"]
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    given = [" ".join(thing["command"]) for thing in containers if arguments and thing["command"][-1] == arguments[-1]]
    programs = [program for command in given for program in re.findall(r"(\w+\.py)", command)]
    assert programs or not arguments
    for program in programs:
        script = ROOT / "scripts/pod" / program
        told = subprocess.run([sys.executable, str(script), "--help"], check=True, capture_output=True, text=True, timeout=60).stdout
        assert [word for word in arguments if word.startswith("--") and not re.search(rf"{word}\b(?!-)", told)] == []
        if "--what" in arguments:
            (choices,) = set(re.findall(r"--what \{(.+?)\}", told))
            assert arguments[arguments.index("--what") + 1] in choices.split(",")


def test_kubectl_reads_every_line(tmp_path):
    """Nothing answers where it is sent, so what kubectl understands ends at the connection."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "none", "user": {"token": "none"}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "current-context": "none",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    for name in ("accounts.json", "extra.php", "mail.pem", "x"):
        (tmp_path / name).touch()

    def type_(line: str) -> str:
        words = [f"--kubeconfig={tmp_path}/config" if word == "kubectl" else word for word in shlex.split(line, comments=True)]
        words = [re.sub(r"^build/.*", f"{tmp_path}/config", word) for word in words]
        typed = subprocess.run(
            ["kubectl", *words], cwd=tmp_path, stdin=subprocess.DEVNULL, check=False, capture_output=True, text=True, timeout=120
        )
        return "" if typed.returncode == 0 or "refused" in typed.stderr else typed.stderr.strip()

    with ThreadPoolExecutor(4) as pool:
        answers = dict(zip(KUBECTL, pool.map(type_, KUBECTL), strict=True))
    assert {line: (KUBECTL[line], answer) for line, answer in answers.items() if answer} == {}


@pytest.mark.parametrize("line", [line for line in KUBECTL if f"-n {MAIL_SERVER} " in line])
def test_names_in_the_cluster_are_production_s(line, manifests):
    words = shlex.split(line.split(" -- ")[0], comments=True)
    names = {(thing["kind"], thing["metadata"]["name"]) for thing in manifests}
    pods = [thing["spec"] for thing in manifests if thing["kind"] == "Deployment"]
    pods += [thing["spec"]["jobTemplate"]["spec"] for thing in manifests if thing["kind"] == "CronJob"]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        kind, _, name = word.partition("/")
        name = name or (following if re.fullmatch(r"[a-z][a-z0-9-]+", following) else "")
        if kind in KINDS and name not in ("", "x"):
            assert (KINDS[kind], name) in names, f"{word}: no {kind} {name}"
        if word == "-c" and "logs" in words:
            inside = [c["name"] for pod in pods for part in ("initContainers", "containers") for c in pod["template"]["spec"].get(part, [])]
            assert following in inside
        if word == "-l" and "outbound" not in following:
            label, value = following.split("=")
            assert any(pod["template"]["metadata"]["labels"].get(label) == value for pod in pods), following
