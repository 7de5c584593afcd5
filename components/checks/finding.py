"""One thing that a preview says, and the rules that say it.

A rule is a small generator with one level and one stable code; its docstring is its meaning on the page of codes
(docs/checks.md). Rules of one file form an area, whose name begins their codes.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")

Subject = TypeVar("Subject")  # what the rules of an area look at: the site, its DNS records, the rendered objects
Found = Iterator[tuple[str, str] | tuple[str, str, str]]  # setting, what is wrong and, where it depends on the case, the remedy


@dataclass(frozen=True)
class Finding:
    """What a rule found. An error must not be deployed, a warning asks for a decision, a note states what holds.

    `setting` is the path below `mailserver:site`, or the DNS record or Kubernetes object where no setting is to blame.
    """

    level: Level
    code: str
    setting: str
    text: str
    remedy: str = ""
    source: str = ""
    consent: bool = False  # a site may acknowledge it
    acknowledged: str = ""  # the site's reason, where it did

    def __str__(self) -> str:
        text = f"{self.setting}: {self.text}" if self.setting else self.text
        text = f"{text}; {self.remedy}" if self.remedy else text
        return f"{text} ({self.source}) [{self.code}]" if self.source else f"{text} [{self.code}]"


@dataclass(frozen=True)
class Rule(Generic[Subject]):
    """A generator over a subject, with what all of its findings share. `consent`: a site may acknowledge them."""

    level: Level
    code: str
    remedy: str
    source: str
    consent: bool
    find: Callable[[Subject], Found]

    @property
    def meaning(self) -> str:
        return " ".join((inspect.getdoc(self.find) or "").split())

    def __call__(self, subject: Subject) -> Iterator[Finding]:
        for setting, text, *remedy in self.find(subject):
            one_line = " ".join(text.split())  # a library's words may have several
            yield Finding(self.level, self.code, setting, one_line, remedy[0] if remedy else self.remedy, self.source, self.consent)


class Area(Generic[Subject]):
    """The rules of one file, in their order, as decorators collect them."""

    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about
        self.rules: list[Rule[Subject]] = []

    def error(
        self, slug: str, *, remedy: str = "", source: str = "", consent: bool = False
    ) -> Callable[[Callable[[Subject], Found]], Rule[Subject]]:
        return self._rule("error", slug, remedy, source, consent=consent)

    def warning(self, slug: str, *, remedy: str = "", source: str = "") -> Callable[[Callable[[Subject], Found]], Rule[Subject]]:
        return self._rule("warning", slug, remedy, source, consent=True)

    def note(self, slug: str, *, remedy: str = "", source: str = "") -> Callable[[Callable[[Subject], Found]], Rule[Subject]]:
        return self._rule("note", slug, remedy, source, consent=True)

    def _rule(
        self, level: Level, slug: str, remedy: str, source: str, *, consent: bool
    ) -> Callable[[Callable[[Subject], Found]], Rule[Subject]]:
        def register(find: Callable[[Subject], Found]) -> Rule[Subject]:
            rule = Rule(level, f"{self.name}.{slug}", remedy, source, consent, find)
            self.rules.append(rule)
            return rule

        return register

    def run(self, subject: Subject) -> Iterator[Finding]:
        for rule in self.rules:
            yield from rule(subject)


def run(areas: Iterable[Area[Subject]], subject: Subject) -> list[Finding]:
    """What the rules of these areas find, errors first, otherwise in their order."""
    return errors_first(finding for area in areas for finding in area.run(subject))


def errors_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))
