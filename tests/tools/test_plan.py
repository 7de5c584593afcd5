"""What the engine's refusals become on the screen."""

import json
from pathlib import Path

from tools.plan import Plan, Step, drift, errors, read_plan, without_interruption

CLAIM = "urn:pulumi:prod::mailserver::mailserver:mail:MailServer$kubernetes:core/v1:PersistentVolumeClaim::mail-claim-old"
VOLUME = "urn:pulumi:prod::mailserver::mailserver:mail:MailServer$kubernetes:core/v1:PersistentVolume::mail-volume-old"
SPACE = "urn:pulumi:prod::mailserver::mailserver:mail:MailServer$kubernetes:core/v1:Namespace::mail-namespace"


def deletion(urn: str) -> tuple[str, str]:
    return urn, f'resource "{urn}" cannot be deleted\nbecause it is protected. To unprotect the resource, either remove the `protect` flag'


def replacement(urn: str) -> tuple[str, str]:
    return urn, f'unable to replace resource "{urn}"\nas it is currently marked for protection. To unprotect the resource, remove'


def test_what_has_left_the_program_is_refused_by_the_name_that_it_has_in_the_cluster():
    step = Step("same", SPACE, retained=False, protection=None, old={}, new={"kind": "Namespace", "metadata": {"name": "mailserver"}})
    lines = list(errors(Plan((step,), (deletion(CLAIM), replacement(SPACE), replacement(CLAIM))), {CLAIM: "PersistentVolumeClaim/old"}))
    assert lines[1:-1] == ["  unprotected:", "    - Namespace/mailserver", "    - PersistentVolumeClaim/old"]
    assert "docs/runbooks/protection.md" in lines[-1]


def test_a_refused_deletion_names_all_that_has_left_the_program_and_a_refused_replacement_only_itself():
    """The engine leaves out what the refused one depends on; and at a replacement it has not seen the rest of the program yet."""
    stored = {CLAIM: "PersistentVolumeClaim/old", VOLUME: "PersistentVolume/old", SPACE: "Namespace/mailserver"}
    step = Step("same", SPACE, retained=False, protection=None, old={}, new={"kind": "Namespace", "metadata": {"name": "mailserver"}})

    def named(complaint):
        return [line for line in errors(Plan((step,), (complaint,)), stored, set(stored)) if line.startswith("    - ")]

    assert named(deletion(CLAIM)) == ["    - PersistentVolume/old", "    - PersistentVolumeClaim/old"]
    assert named(replacement(CLAIM)) == ["    - PersistentVolumeClaim/old"]


def test_an_error_is_told_once_and_the_engines_own_endings_are_not():
    plan = Plan((), (("", "update failed"), (CLAIM, "no space"), (CLAIM, "no space"), ("", "KeyboardInterrupt")))
    assert list(errors(plan, {CLAIM: "PersistentVolumeClaim/old"})) == ["PersistentVolumeClaim/old: no space"]


INTERRUPTION = """\
Traceback (most recent call last):

  File "/opt/pulumi-language-python-exec", line 232, in <module>

KeyboardInterrupt

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/opt/pulumi-language-python-exec", line 244, in <module>
KeyboardInterrupt
"""
FAULT = """\
Traceback (most recent call last):
  File "/srv/__main__.py", line 3, in <module>
ValueError: a fault of the program
"""


def test_of_the_tracebacks_only_a_fault_of_the_program_is_shown():
    shown = "".join(without_interruption(f"warning: one\n{INTERRUPTION}{FAULT}error: two\n".splitlines(keepends=True)))
    assert "KeyboardInterrupt" not in shown
    assert "During handling" not in shown
    assert FAULT in shown
    assert shown.startswith("warning: one\n") and shown.endswith("error: two\n")


def found(urn: str, op: str, left: dict | None, live: dict | None) -> str:
    sides = {side: {"inputs": inputs} for side, inputs in (("old", left), ("new", live)) if inputs is not None}
    return json.dumps(
        {"resOutputsEvent": {"metadata": {"op": op, "urn": urn, "type": urn.split("::")[2].rsplit("$", maxsplit=1)[-1], **sides}}}
    )


def test_a_refresh_names_each_field_that_differs_and_each_object_that_is_gone(tmp_path: Path):
    """In the engine's event log: an update for what differs, a delete for what is gone, the same for all else."""
    space = {"kind": "Namespace", "metadata": {"name": "mailserver"}}
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "old"}, "spec": {"modes": ["one"], "size": 1}}
    log = tmp_path / "log"
    log.write_text(
        "\n".join(
            [
                found(SPACE, "same", space, space),
                found(CLAIM, "update", claim, claim | {"spec": {"modes": ["two"], "more": {"a": 1}}}),
                found(VOLUME, "delete", {"kind": "PersistentVolume", "metadata": {"name": "old"}}, None),
            ]
        )
    )
    assert list(drift(read_plan(log))) == [
        "PersistentVolume/old: is gone",
        "PersistentVolumeClaim/old: spec.modes[0] was one and is two",
        'PersistentVolumeClaim/old: spec.more was nothing and is {"a": 1}',
        "PersistentVolumeClaim/old: spec.size was 1 and is nothing",
    ]
