"""How tests read what the doctor saw."""

from collections.abc import Iterable

from tools.doctor.check import Result


def not_well(results: Iterable[Result]) -> dict[str, list[str]]:
    """What is not well, by verdict and check: what it is about, and what was seen."""
    found: dict[str, list[str]] = {}
    for result in results:
        if result.seen.verdict != "ok":
            found.setdefault(f"{result.seen.verdict} {result.check.id}", []).append(f"{result.seen.about}: {result.seen.text}")
    return found
