"""How every command tells a person what is wrong."""

import sys


def print_errors(reasons: object) -> None:
    """One `error: …` line on standard error for each line of the text."""
    for line in str(reasons).splitlines():
        print(f"error: {line}", file=sys.stderr)
