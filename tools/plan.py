"""What the engine plans or did, read from its event log: a summary by name, and the errors alone."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tools.dns_advice import dns_advice
from tools.fields import changed

# The engine's operations, in the words of the summary. The first line that fits a resource is its line.
WORDS = {
    "replace": ("replace", "create-replacement", "delete-replaced", "import-replacement", "read-replacement", "discard-replaced"),
    "take over": ("import",),
    "delete": ("delete", "read-discard", "discard"),
    "create": ("create",),
    "change": ("update",),
}
STAYS = "stop managing (stays in the cluster)"
UNPROTECT, PROTECT = "stop protecting", "protect"
_COLOUR = re.compile(r"<\{%.*?%\}>")
_INTERRUPTED = "KeyboardInterrupt"  # the program, which the engine ends because of an error that is told anyway
_ENDINGS = {"preview failed", "update failed"}  # said after the error itself
_DELETION = "cannot be deleted"  # told once the whole program has been seen
_PROTECTED = "To unprotect the resource"  # in what it says of deletions and of replacements


@dataclass(frozen=True)
class Step:
    """One operation on one resource; `old` and `new` are inputs, empty where it has no such side. `protection`: a change of it."""

    op: str
    urn: str
    retained: bool
    protection: str | None
    old: Mapping[str, Any]
    new: Mapping[str, Any]

    @property
    def label(self) -> str:
        return label(self.urn, self.new or self.old)


@dataclass(frozen=True)
class Plan:
    """The events of one preview or update."""

    steps: tuple[Step, ...]
    complaints: tuple[tuple[str, str], ...]  # URN and text
    results: tuple[Step, ...] = ()  # what became of each; of a refresh, what it found: `old` is as recorded, `new` as it is

    @cached_property
    def by_word(self) -> dict[str, list[str]]:
        """What happens to which resources, by name; without those that stay as they are."""
        operations: dict[str, list[Step]] = {}
        for step in self.steps:
            operations.setdefault(step.urn, []).append(step)
        found: dict[str, list[str]] = {}
        for steps in operations.values():
            for word, ops in WORDS.items():
                if any(step.op in ops for step in steps):
                    shown = next((step for step in reversed(steps) if step.new), steps[-1])  # of a replacement, the new one
                    found.setdefault(STAYS if word == "delete" and shown.retained else word, []).append(shown.label)
                    break
        for step in self.steps:
            if step.protection:
                found.setdefault(step.protection, []).append(step.label)
        return {word: sorted(set(found[word])) for word in (*WORDS, STAYS, PROTECT, UNPROTECT) if word in found}

    def of(self, op: str) -> list[Step]:
        return [step for step in self.steps if step.op == op]

    @property
    def declared(self) -> list[Mapping[str, Any]]:
        """Every Kubernetes object of the program."""
        return [step.new for step in self.steps if "kind" in step.new and "metadata" in step.new]


def label(urn: str, inputs: Mapping[str, Any]) -> str:
    """Kind/name, as the settings name an object."""
    metadata = inputs.get("metadata")
    if "kind" in inputs and isinstance(metadata, Mapping):
        return f"{inputs['kind']}/{metadata.get('name')}"
    *_, qualified_type, name = urn.split("::")
    return f"{re.split('[:/]', qualified_type)[-1]}/{name}"


def read_plan(log: Path) -> Plan:
    """The plan in a log that `pulumi --event-log` wrote: one JSON object a line."""
    steps, results, complaints = [], [], []
    for line in log.read_text("utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:  # an engine that was killed may end within a line
            continue
        if "resourcePreEvent" in event:
            steps += _step(event["resourcePreEvent"]["metadata"])
        elif "resOutputsEvent" in event:
            results += _step(event["resOutputsEvent"]["metadata"])
        elif "diagnosticEvent" in event and event["diagnosticEvent"]["severity"] == "error":
            diagnostic = event["diagnosticEvent"]
            complaints.append((diagnostic.get("urn", ""), _COLOUR.sub("", diagnostic["message"]).strip()))
    return Plan(tuple(steps), tuple(complaints), tuple(results))


def _step(metadata: Mapping[str, Any]) -> Iterator[Step]:
    if metadata["type"].startswith(("mailserver:", "pulumi:pulumi:")):
        return  # components: nothing is done to them
    old, new = metadata.get("old") or {}, metadata.get("new") or {}
    before, after = bool(old.get("protect")), bool(new.get("protect"))
    protection = (PROTECT if after else UNPROTECT) if old and new and before != after else None
    retained = bool(old.get("retainOnDelete"))
    yield Step(metadata["op"], metadata["urn"], retained, protection, old.get("inputs") or {}, new.get("inputs") or {})


def drift(plan: Plan) -> Iterator[str]:
    """What a refresh found to be other than it was left: a line for each field that this program declares."""
    for step in sorted(plan.results, key=lambda step: step.label):
        if step.op == "delete":
            yield f"{step.label}: is gone"
        elif step.op == "update":
            fields = [f"{step.label}: {place} was {left} and is {found}" for place, left, found in changed(step.old, step.new)]
            yield from fields or [f"{step.label}: was changed"]


def summary(plan: Plan) -> Iterator[str]:
    """A line for each kind of change, with the names."""
    for word, names in plan.by_word.items():
        yield f"{len(names)} to {word}: {', '.join(names)}"
    if not plan.by_word:
        yield "nothing to change"


def without_interruption(lines: Iterable[str]) -> Iterator[str]:
    """The engine's messages without the tracebacks of a program that it has stopped, which hide the reason above them."""
    held: list[str] = []
    for line in lines:
        if not held and not line.startswith(("Traceback (most recent call last):", "During handling of")):
            yield line
            continue
        held.append(line)
        if line.startswith(_INTERRUPTED):
            held.clear()
        elif line.strip() and not line.startswith((" ", "Traceback", "During handling")):
            yield from held
            held.clear()
    yield from held


def errors(plan: Plan, stored: Mapping[str, str], protected: Collection[str] = ()) -> Iterator[str]:
    """What the engine and the providers complain of, each once; protection in our words.

    `stored`: label by URN of what the state holds; `protected`: the URNs of it that are protected. The engine leaves out what another
    refused deletion depends on, so that each try would name one more; here all that the program no longer declares are named.
    """
    declared = {step.urn for step in plan.steps if step.new}
    names = {**stored, **{step.urn: step.label for step in plan.steps}}
    held: dict[str, str] = {}
    told: set[str] = set()
    for urn, text in plan.complaints:
        if _INTERRUPTED in text or text in _ENDINGS:
            continue
        if _PROTECTED in text and (refused := re.search(r'"(urn:[^"]+)"', text)):
            held[refused[1]] = names.get(refused[1]) or label(refused[1], {})
            if _DELETION in text:
                held |= {urn: names[urn] for urn in protected if urn not in declared}
            continue
        line = dns_advice(urn, text) or (f"{names.get(urn) or label(urn, {})}: {text}" if urn else text)
        if line not in told:
            told.add(line)
            yield line
    yield from protection(held)


def protection(held: Mapping[str, str]) -> Iterator[str]:
    """What a refusal for the sake of protection says; `held`: label by URN of what is protected."""
    records = {urn: advice for urn in held if (advice := dns_advice(urn, _PROTECTED))}
    yield from records.values()
    if others := sorted(held[urn] for urn in held.keys() - records.keys()):
        yield "mail is in these or goes through them, so they are protected, and this would delete or replace them:"
        yield "  unprotected:"
        yield from (f"    - {name}" for name in others)
        yield "undo the change in the settings, or follow docs/runbooks/protection.md, which says when to write these lines there"
