"""Sites and recordings for the tests: the two committed stacks, and any variation of one."""

import copy
import functools
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.settings.parse import parse_site
from components.settings.site import KEY, Site
from tools.offline.program import Recording, run_main, run_once
from tools.offline.stackfile import ROOT, Stack, load_stack

Settings = dict[str, Any]


@functools.cache
def _stack(name: str) -> Stack:
    return load_stack(ROOT, name)


def settings(stack: str = "prod") -> Settings:
    """A copy of a committed stack's settings, to be changed at will."""
    return copy.deepcopy(json.loads(_stack(stack).config[KEY]))


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
        return parse_site(json.dumps(base))

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
