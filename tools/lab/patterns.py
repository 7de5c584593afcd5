"""Rspamd's compiled patterns, kept between labs: making them takes a minute of processor, before it listens."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tools.lab.debian import CACHE


@contextlib.contextmanager
def patterns(state: Path, major: str) -> Iterator[None]:
    """Around the start of a lab's daemons. The first lab of a major version makes them in `state`, and the others wait for it."""
    kept = CACHE / "rspamd" / major
    kept.mkdir(parents=True, exist_ok=True)
    with (kept / "lock").open("w") as lock:
        if not any(kept.glob("*.hs*")):
            fcntl.flock(lock, fcntl.LOCK_EX)
        _copy_new(kept, state)
        yield
        _copy_new(state, kept)


def _copy_new(source: Path, target: Path) -> None:
    """Each file whole or not at all: they are named by what they hold."""
    for compiled in source.glob("*.hs*"):
        if not (target / compiled.name).exists():
            fresh = target / f".{compiled.name}.{os.getpid()}"
            shutil.copy(compiled, fresh)
            fresh.rename(target / compiled.name)
