"""Every resource of the committed stacks, as it is and as it was reviewed."""

import difflib

import pytest

from tests.program import golden


def test_what_a_stack_registers_is_what_was_reviewed():
    written = {path.name: path.read_text("utf-8") for path in golden.FOLDER.iterdir()}
    now = golden.texts()
    assert written.keys() == now.keys()
    for name, text in now.items():
        if text != written[name]:
            lines = difflib.unified_diff(written[name].splitlines(), text.splitlines(), "reviewed", "now", lineterm="", n=8)
            pytest.fail(f"{name} has changed; if that is meant, run `make golden` and commit it:\n" + "\n".join(lines), pytrace=False)


def test_a_lost_dependency_is_seen(recording):
    before = golden.outline(recording("prod"))
    (urn,) = [urn for urn in before["resources"] if urn.endswith("RuleSet::edge-rules")]
    after = {**before, "resources": {**before["resources"], urn: {**before["resources"][urn], "dependencies": []}}}
    assert golden.difference(before, after)["resources"].keys() == {urn}
