"""Deletes old mail over IMAP: searches, counts, refuses what looks wrong, and only then expunges what it counted.

Each rule is MAILBOX|FOLDER|KIND|DAYS. Age is the date of arrival; mail that was never opened is found too, for the server moves
it to where it is searched. What is flagged (starred) stays. Each password is a file named as the mailbox, with `_at_` for `@`.
Ends with 0 when every mailbox was done, else with 1 and what went wrong.
"""

import argparse
import imaplib
import signal
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from common import Imap, Metrics, ProblemError, push, reason, terminate_cleanly

# RFC 3501 6.4.4: HEADER matches a part of the value, and an empty one matches every message that has the field. Folded headers
# are unfolded by the server first.
AUTOMATED = (
    'OR HEADER List-Unsubscribe "" OR HEADER Precedence bulk OR HEADER Precedence list OR HEADER Precedence junk'
    " HEADER Auto-Submitted auto-"
)
CRITERIA = {"automated": f" ({AUTOMATED})", "human": f" NOT ({AUTOMATED})", "any": ""}
COUNTER = {"automated": "auto", "human": "human", "any": "human"}
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]  # in any locale (RFC 3501, date-month)
SMALL = 20  # so few are no reason to refuse, whatever their share: a mailbox of three messages with two old ones is ordinary
COMMAND_RANGES = 500  # ranges in one command; Dovecot takes lines of 64 KiB, and two UIDs of ten digits make 22 bytes


def query(kind: str, days: int) -> str:
    """The search for what a rule deletes; OLDER counts seconds since arrival (RFC 5032), unlike BEFORE, which knows days only.

    OLDER goes by the server's clock and BEFORE by this node's: neither of them alone can make new mail old. The day after
    tomorrow's, because BEFORE goes by the server's time zone, which may be a day ahead.
    """
    day = time.gmtime(time.time() - (days - 2) * 86400)
    return f"UNFLAGGED OLDER {days * 86400} BEFORE {day.tm_mday}-{MONTHS[day.tm_mon - 1]}-{day.tm_year}{CRITERIA[kind]}"


def ranges(uids: list[int]) -> Iterator[str]:
    """IMAP sequence sets that hold exactly these UIDs, each short enough for one command."""
    uids = sorted(uids)
    breaks = [0, *(index for index, (one, other) in enumerate(pairwise(uids), 1) if other != one + 1), len(uids)]
    runs = [f"{uids[start]}:{uids[stop - 1]}" if stop - start > 1 else f"{uids[start]}" for start, stop in pairwise(breaks) if stop > start]
    for start in range(0, len(runs), COMMAND_RANGES):
        yield ",".join(runs[start : start + COMMAND_RANGES])


def expunge(imap: Imap, uids: list[int]) -> None:
    for chunk in ranges(uids):
        imap.ask("STORE", chunk, "+FLAGS.SILENT", r"(\Deleted)")
        imap.ask("EXPUNGE", chunk)


def keep_folder(imap: Imap, folder: str, rules: list[tuple[str, int]], options: argparse.Namespace) -> dict[str, int]:
    """Apply a folder's rules to it; counts of what was scanned, deleted by kind, and kept."""
    kind, data = imap.select(f'"{folder}"')
    if kind != "OK":
        raise ProblemError(f"there is no folder {folder}")
    total = int(data[0] or 0)
    doomed: dict[str, set[int]] = {"auto": set(), "human": set()}
    for rule, days in rules:
        doomed[COUNTER[rule]] |= set(map(int, imap.find(query(rule, days))))
    doomed["human"] -= doomed["auto"]
    due = sum(map(len, doomed.values()))
    if due > SMALL and due * 100 > total * options.max_share:
        raise ProblemError(
            f"{folder}: {due} of {total} are due, more than {options.max_share} %; nothing was deleted "
            '(docs/runbooks/restore.md, "Retention refuses")'
        )
    # UIDs grow in the order of arrival. What is above the limit has its turn in the next run: an external sender could otherwise
    # stop retention for good with one message more than the limit.
    chosen = set(sorted(doomed["auto"] | doomed["human"])[: options.max_messages])
    doomed = {kind: uids & chosen for kind, uids in doomed.items()}
    if not options.dry_run:
        expunge(imap, list(chosen))
    auto, human = (len(doomed[kind]) for kind in ("auto", "human"))
    return {"scanned": total, "auto_deleted": auto, "human_deleted": human, "kept": total - len(chosen), "due": due - len(chosen)}


def keep_mailbox(mailbox: str, folders: dict[str, list[tuple[str, int]]], options: argparse.Namespace) -> dict[str, int]:
    try:
        password = (options.passwords / mailbox.replace("@", "_at_")).read_text("utf-8").rstrip("\r\n")  # as an editor leaves it
    except OSError:
        password = ""
    if not password:
        raise ProblemError("the Secret has no password for it")
    totals: dict[str, int] = {}
    with Imap(options.address, options.port, options.name, options.timeout) as imap:
        imap.log_in(mailbox, password)
        able = b" ".join(imap.capability()[1]).decode().upper().split()  # more than what it announced before the login
        if missing := {"UIDPLUS", "WITHIN"} - set(able):
            raise ProblemError(f"the server lacks {', '.join(sorted(missing))}")
        for folder, rules in folders.items():
            for name, count in keep_folder(imap, folder, rules, options).items():
                totals[name] = totals.get(name, 0) + count
    return totals


def by_mailbox(rules: list[str]) -> dict[str, dict[str, list[tuple[str, int]]]]:
    """`{mailbox: {folder: [(kind, days), …]}}`."""
    result: dict[str, dict[str, list[tuple[str, int]]]] = {}
    for rule in rules:
        mailbox, folder, kind, days = rule.split("|")
        result.setdefault(mailbox, {}).setdefault(folder, []).append((kind, int(days)))
    return result


MEANINGS = {
    "scanned": "Messages in the mailbox before the run",
    "auto_deleted": "Automated messages that the run deleted",
    "human_deleted": "Other messages that the run deleted",
    "kept": "Messages that stayed",
    "due": "Messages that stayed only because a run deletes no more than its limit",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", required=True, help="name of the group in the Pushgateway")
    parser.add_argument("--name", required=True, help="public name of the mail server, which its certificate must be valid for")
    parser.add_argument("--address", required=True, help="where IMAP is reached")
    parser.add_argument("--port", type=int, default=993)
    parser.add_argument("--rule", action="append", required=True, metavar="MAILBOX|FOLDER|KIND|DAYS")
    parser.add_argument("--passwords", type=Path, required=True, help="folder of a Secret")
    parser.add_argument("--max-messages", type=int, required=True, help="a run deletes no more from a folder; the oldest go first")
    parser.add_argument("--max-share", type=int, required=True, help="percent of a folder: where more is due, nothing is deleted")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that the server may be silent, a search included")
    parser.add_argument("--pushgateway")
    parser.add_argument("--dry-run", action="store_true", help="count and report only")
    options = parser.parse_args()

    signal.signal(signal.SIGTERM, terminate_cleanly)
    metrics, failed, started = Metrics(), False, time.monotonic()
    for mailbox, folders in by_mailbox(options.rule).items():
        problem, counts, ended = "", {}, False
        try:
            counts = keep_mailbox(mailbox, folders, options)
        except (ProblemError, SystemExit) as error:
            problem, ended = reason(error), isinstance(error, SystemExit)
        except (OSError, imaplib.IMAP4.error, UnicodeError) as error:
            problem = f"IMAP: {type(error).__name__}"  # a UnicodeError's text would show a character of the password
        failed = failed or bool(problem)
        for name, meaning in MEANINGS.items() if counts else ():
            value = 0 if options.dry_run and name.endswith("deleted") else counts[name]
            metrics.set(f"spam_retention_{name}_total", value, meaning, mailbox=mailbox)
        metrics.set("spam_retention_errors_total", bool(problem), "Whether the run failed for this mailbox", mailbox=mailbox)
        said = problem or ", ".join(f"{name} {count}" for name, count in counts.items())
        print(f"{mailbox}: {said}{' (dry run: nothing was deleted)' if options.dry_run and not problem else ''}")
        if ended:
            break
    metrics.set("spam_retention_duration_seconds", time.monotonic() - started, "How long the run took")
    if not failed:
        metrics.set("spam_retention_last_success_timestamp", time.time(), "When the last run without an error ended")
    pushed = push(options.pushgateway, options.job, metrics)
    return 1 if failed or pushed is False else 0


if __name__ == "__main__":
    sys.exit(main())
