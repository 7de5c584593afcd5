"""Runs checks side by side, each within a bound of time, and sums up what they saw."""

import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue

from components.errors import UserError
from tools.doctor.check import WORST_FIRST, Check, Result, Seen, blind, ok
from tools.doctor.patient import Patient

SECONDS = 100  # for all checks together; a doctor that takes longer than two minutes is not asked at night
EXIT = {"ok": 0, "degraded": 1, "broken": 2, "could not check": 3}


def examine(patient: Patient, checks: Iterable[Check], told: Callable[[Check], None], seconds: float = SECONDS) -> list[Result]:
    """Every result, worst first, otherwise in the checks' order. `told` hears of each check that has ended.

    A check that fails in itself, or has not ended in time, could not check; nothing waits for it.
    """
    checks = list(checks)
    ended: SimpleQueue[tuple[Check, list[Seen]]] = SimpleQueue()
    for check in checks:
        # Not an executor: it would wait at the program's end for a check that hangs.
        threading.Thread(target=lambda check=check: ended.put((check, _look(patient, check))), daemon=True).start()
    end = time.monotonic() + seconds
    found: dict[str, list[Seen]] = {}
    while len(found) < len(checks):
        try:
            check, seen = ended.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break
        found[check.id] = seen
        told(check)
    late = [blind("", f"no answer within {seconds:g} s")]
    results = [Result(check, seen) for check in checks for seen in found.get(check.id, late)]
    return sorted(results, key=lambda result: WORST_FIRST.index(result.seen.verdict))


def exit_code(results: Iterable[Result]) -> int:
    """The worst verdict's: 0 ok, 1 degraded, 2 broken, 3 nothing worse than that something could not be checked."""
    verdicts = {result.seen.verdict for result in results}
    return EXIT[next((verdict for verdict in WORST_FIRST if verdict in verdicts), "ok")]


def _look(patient: Patient, check: Check) -> list[Seen]:
    seen: list[Seen] = []
    try:
        seen.extend(check.look(patient))
    except UserError as error:
        seen.append(blind("", " ".join(str(error).split())))
    except Exception as error:  # noqa: BLE001 - one check's own fault must not hide what the others see
        seen.append(blind("", f"the check itself failed: {type(error).__name__}: {error}"))
    return seen or [ok("", "nothing wrong found")]
