"""The page of codes: everything that a preview may say, by area."""

from components.checks.finding import Rule
from components.checks.registry import every_area

INTRODUCTION = """\
# What a preview says

Written by `make docs` from the rules in [components/checks](../components/checks). Each line of a preview ends with its code:

    warning: mail.image: docker.io/… is not pinned by digest …; pin it by digest: image:tag@sha256:… [mail.image-not-pinned]

An **error** must not be deployed: preview, render and `up` refuse it. A **warning** asks for a decision. A **note** states what holds.
A decision about a warning or a note is written into the stack file with its reason, and shown in one line from then on:

    acknowledged:
      bans.none: Fail2ban stays off

An error cannot be acknowledged, except where the table says so. An acknowledgement of something that no longer occurs is a warning.
`make render JSON=1` prints all findings, the acknowledged ones too, as JSON.
"""
HEAD = "| code | level | meaning | what to do | source |\n|---|---|---|---|---|\n"


def page() -> str:
    text = INTRODUCTION
    for area in every_area():
        text += f"\n## {area.name}\n\n{area.about[0].upper()}{area.about[1:]}.\n\n{HEAD}"
        text += "".join(_row(rule) for rule in area.rules)
    return text


def _row(rule: Rule) -> str:
    level = f"{rule.level}, may be acknowledged" if rule.level == "error" and rule.consent else rule.level
    cells = (f"`{rule.code}`", level, rule.meaning, rule.remedy, rule.source)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"
