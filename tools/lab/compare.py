"""What a running docker-mailserver sets otherwise than facts.py says."""

from collections.abc import Callable, Iterator

from tools.lab import facts
from tools.lab.majors import Major

Run = Callable[..., str]
"""Runs a command where the mail server is and returns what it prints."""


def differences(run: Run, major: Major) -> Iterator[str]:
    """One line per fact that does not hold: `name: fact, but live value`. Values that the stack itself overrides appear too."""
    settings = _assignments(run("postconf"))
    yield from _compare("", {fact.name: fact.value for fact in major.postfix_main}, settings)

    entries = [line.split() for line in run("postconf", "-M").splitlines() if not line.startswith(" ")]  # their options follow below
    services = {"/".join(entry[:2]): " ".join(entry[2:8]) for entry in entries}
    yield from _compare("master.cf ", {fact.name: fact.value for fact in facts.POSTFIX_MASTER}, services)

    options = {f"{service}/{fact.name}": fact.value for service, rows in facts.POSTFIX_SERVICE_OPTIONS.items() for fact in rows}
    yield from _compare("master.cf ", options, _assignments(run("postconf", "-P")))

    yield from _compare("dovecot ", _dovecot_facts(major), _blocks(run("doveconf", "-a")))


def _dovecot_facts(major: Major) -> dict[str, str]:
    """Without those whose value depends on the site, and the one that doveconf does not print."""
    return {fact.name: fact.value for fact in major.dovecot if "$" not in fact.value and fact.name != "ssl_dh"}


def _blocks(text: str) -> dict[str, str]:
    """What doveconf prints, by the paths that the facts use: `service auth > unix_listener auth-userdb > mode`.

    Dovecot 2.4 prints names with a common beginning as a block, lists without commas, and texts in quotes.
    """
    path: list[str] = []
    flat = {}
    for line in map(str.strip, text.splitlines()):
        if line.endswith("{"):
            path.append(line[:-1].strip())
        elif line == "}":
            path.pop()
        elif " =" in line and not line.startswith("#") and "# hidden" not in line:
            name, _, value = line.partition(" =")
            value = value.strip()
            if value.startswith('"'):
                value = value.strip('"').replace(r"\\", "\\")
            flat[" > ".join((*path, name))] = flat["_".join((*path, name))] = value
    return flat


def _assignments(text: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in text.splitlines())}


def _compare(place: str, wanted: dict[str, str], live: dict[str, str]) -> Iterator[str]:
    for name, value in wanted.items():
        if live.get(name, "").replace(",", " ").split() != value.replace(",", " ").split():
            yield f"{place}{name}: {value!r}, but {live.get(name, 'not set')!r}"
