"""One check of the running system: what is expected, what was seen, and what that means.

A check is a small generator with one stable id; its docstring is its meaning on the page of checks (docs/doctor.md). Checks of one
file form an area. No check changes anything.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from components.errors import UserError
from tools.doctor.patient import Patient

Verdict = Literal["broken", "degraded", "could not check", "ok"]
WORST_FIRST: tuple[Verdict, ...] = ("broken", "degraded", "could not check", "ok")


class BlindError(UserError):
    """A check could not look; the text says why. Nothing is known then, neither good nor bad."""


@dataclass(frozen=True)
class Seen:
    """What was seen at one thing: a record, a service, a job."""

    verdict: Verdict
    about: str
    text: str


def ok(about: str, text: str) -> Seen:
    return Seen("ok", about, text)


def degraded(about: str, text: str) -> Seen:
    return Seen("degraded", about, text)


def broken(about: str, text: str) -> Seen:
    return Seen("broken", about, text)


def blind(about: str, text: str) -> Seen:
    return Seen("could not check", about, text)


def unused(*settings: str) -> Seen:
    """Nothing was looked at, because the site lacks one of these settings."""
    return ok("", f"not used: needs {' and '.join(settings)}")


Look = Callable[[Patient], Iterator[Seen]]


@dataclass(frozen=True)
class Check:
    """`id` is `<area>.<slug>`; `page` is a file below docs/, with an anchor."""

    id: str
    expects: str
    remedy: str
    page: str
    look: Look

    @property
    def meaning(self) -> str:
        return " ".join((inspect.getdoc(self.look) or "").split())


@dataclass(frozen=True)
class Result:
    """What one check saw at one thing."""

    check: Check
    seen: Seen


class Area:
    """The checks of one file, in their order, as the decorator collects them."""

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self.checks: list[Check] = []

    def check(self, slug: str, *, expects: str, remedy: str, page: str) -> Callable[[Look], Check]:
        def register(look: Look) -> Check:
            check = Check(f"{self.name}.{slug}", expects, remedy, page, look)
            self.checks.append(check)
            return check

        return register
