"""Sites and recordings for the tests: the two committed stacks, and any variation of one."""

import base64
import copy
import functools
import gc
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from components.checks.registry import read_site
from components.settings.site import KEY, Site
from tools.offline.program import Recording, run_main, run_once
from tools.offline.stackfile import ROOT, Stack, load_stack

# Pulumi's SDKs are a million objects that stay: looking through them as often as usual is a third of a program's time.
gc.set_threshold(20_000, 20, 20)

Settings = dict[str, Any]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A temporary folder for each run: the start of another run would close the one that all share to Dovecot's processes."""
    if not hasattr(config, "workerinput") and config.option.basetemp is None:
        config.option.basetemp = config.stash[FOLDER] = tempfile.mkdtemp(prefix="test-")


class Processes(LoadScopeScheduling):
    """One process runs the tests of a file, or all that share a lab, which is slow to start and may be hurt by them."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, name = nodeid.partition("::")
        folder = str(Path(path).parent)
        major = re.search(r"\[(\d+)[-\]]", name)
        return "load" if folder == "tests/load" else f"lab {major[1]}" if folder == "tests/lab" and major else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Processes:
    return Processes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest is the first to begin, so that no process is alone with it in the end."""
    longest = ("lab", "contract", "load")
    items.sort(key=lambda item: [*longest, item.path.parent.name].index(item.path.parent.name))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Left behind after a failure, to look at."""
    folder = session.config.stash.get(FOLDER, None)
    if folder and exitstatus != pytest.ExitCode.TESTS_FAILED:
        shutil.rmtree(folder, ignore_errors=True)


FOLDER = pytest.StashKey[str]()


@functools.cache
def _stack(name: str) -> Stack:
    return load_stack(ROOT, name)


# An issuer of tokens; the committed stacks have none.
OAUTH = {"introspection_url": "https://id.example.org/introspect", "client_id": "mail@lan", "scope": "mail"}

# Of no firewall: the committed one is a placeholder, with which nothing on the firewall is declared.
HOST_KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))).decode()


def settings(stack: str = "prod") -> Settings:
    """A copy of a committed stack's settings, to be changed at will, with a host key for the firewall where it has access to one."""
    copied = copy.deepcopy(json.loads(_stack(stack).config[KEY]))
    if "ssh" in copied["edge"]:
        copied["edge"]["ssh"]["host_key"] = HOST_KEY
    return copied


def change(base: Settings, path: str, value: Any) -> Settings:
    """`base` with the setting at `path` replaced, or removed where the value is `...`; a path is `area/setting/entry`."""
    *parents, last = path.split("/")
    place = base
    for parent in parents:
        place = place[int(parent)] if isinstance(place, list) else place.setdefault(parent, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return base


def copy_checkout(folder: Path) -> Path:
    """A copy of this checkout's files, on its virtual environment."""
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@functools.cache
def recording_of(text: str, stack: str = "test") -> Recording:
    return run_once(Stack("mailserver", stack, {KEY: text}, frozenset()), run_main, preview=False)


@pytest.fixture
def site() -> Callable[..., Site]:
    """`site("prod", {"mail/srs": False})`: a parsed site, with settings changed by path."""

    def make(stack: str = "prod", changes: Settings | None = None) -> Site:
        base = settings(stack)
        for path, value in (changes or {}).items():
            change(base, path, value)
        return read_site(json.dumps(base))

    return make


@pytest.fixture
def recording() -> Callable[..., Recording]:
    """`recording("prod", {…})`: what the whole program registers for a site; the same site is run once per process."""

    def make(stack: str = "prod", changes: Settings | None = None) -> Recording:
        base = settings(stack)
        for path, value in (changes or {}).items():
            change(base, path, value)
        return recording_of(json.dumps(base), stack)

    return make
