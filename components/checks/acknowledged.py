"""Rules for `acknowledged`: a site's own decisions about findings, with a reason each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.checks.finding import Area, Finding, Found, Rule


@dataclass(frozen=True)
class Ledger:
    """The site's acknowledgements by code, what was found, and every rule by its code."""

    reasons: Mapping[str, str]
    found: Sequence[Finding]
    rules: Mapping[str, Rule]


AREA = Area[Ledger]("acknowledged", "what a site says about findings")


@AREA.warning("unknown-code", remedy="docs/checks.md lists all codes")
def unknown_code(ledger: Ledger) -> Found:
    """No finding has this code; it may have been renamed."""
    for code in ledger.reasons:
        if code not in ledger.rules:
            yield f"acknowledged.{code}", "no finding has this code"


@AREA.warning("not-found", remedy="remove it")
def not_found(ledger: Ledger) -> Found:
    """The finding no longer occurs, so its acknowledgement would hide the next one."""
    codes = {finding.code for finding in ledger.found}
    for code in ledger.reasons:
        if code in ledger.rules and ledger.rules[code].consent and code not in codes:
            yield f"acknowledged.{code}", "nothing of this kind was found"


@AREA.warning("error", remedy="remove it, and mend what it names")
def error(ledger: Ledger) -> Found:
    """An error cannot be acknowledged, except where the page of codes says so."""
    for code in ledger.reasons:
        if code in ledger.rules and not ledger.rules[code].consent:
            yield f"acknowledged.{code}", "is an error, which cannot be acknowledged"
