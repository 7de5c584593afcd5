"""The page of the doctor: everything that it looks at, by area."""

from tools.doctor.areas import AREAS
from tools.doctor.check import Check

INTRODUCTION = """\
# Is it well?

    make doctor STACK=prod

looks at the running system from this machine and says what is not well, the worst first, why, and what to do. It changes nothing and
takes less than two minutes. `ONLY=edge,dns` looks at some areas, `ALL=1` shows what is well too, `JSON=1` prints every result as JSON.
The key of the firewall is found as for `make edge-plan`, or named with `KEY=`.

| exit code | meaning |
|---|---|
| 0 | all is well |
| 1 | degraded: mail flows, something needs attention |
| 2 | broken: mail is refused, lost or late, or will be soon |
| 3 | nothing worse than that something could not be checked |

What could not be checked says so in one line: no cluster, no firewall, a resolver that is silent. Ctrl-C ends it with 130.

The settings below `doctor` say where it looks from. A service that is looked at from inside the network may be seen from the Internet
in another way: `doctor.vantage` names an SSH server elsewhere that opens the connections, with nothing installed there. Without it, a
public address that takes no connection from inside is tried at the firewall's own address, and is called `could not check` if that
answers. With `doctor.inside`, `INSIDE=1` runs a job in the cluster for what only a pod can see, and deletes it afterwards.
`doctor.prometheus` and `jobs.pushgateway` may be names that only pods resolve: they are asked through the cluster's API.

An `up` that wrote other redirects or pass rules runs `edge.services`, `edge.log-in-without-tls` and `edge.open-relay` (`make edge-check`)
and fails if one of them is broken; `edge.check_after_flip: false` turns that off. What could not be checked does not fail it.

Written by `make docs` from [tools/doctor](../tools/doctor). To add a check, write a function with a docstring in its area's file.
"""
HEAD = "| check | what is expected | meaning | what to do | page |\n|---|---|---|---|---|\n"


def page() -> str:
    text = INTRODUCTION
    for area in AREAS:
        text += f"\n## {area.name}\n\n{area.about[0].upper()}{area.about[1:]}.\n\n{HEAD}"
        text += "".join(_row(check) for check in area.checks)
    return text


def _row(check: Check) -> str:
    cells = (f"`{check.id}`", check.expects, check.meaning, check.remedy, f"[{check.page}]({check.page})")
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"
