"""One entry for all commands, and one place that prints what is wrong."""

import os
import re
import subprocess

import pytest
from click.testing import CliRunner

from tools.__main__ import COMMANDS, main
from tools.offline.stackfile import ROOT

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def test_help_lists_every_command_with_a_sentence():
    listed = dict(re.findall(r"^  ([a-z-]+)  +(\S.*)$", run("--help").output.partition("Commands:")[2], flags=re.MULTILINE))
    assert listed.keys() == COMMANDS.keys()


def test_a_misspelt_command_is_refused_without_a_traceback():
    result = run("rendr")
    assert result.exit_code == 2
    assert "rendr" in result.output


@pytest.mark.parametrize(("arguments", "code"), [(("render",), 1), (("edge-plan",), 1), (("job", "x"), 2)])
def test_what_is_wrong_is_printed_line_by_line(arguments, code):
    result = run(*arguments, "--stack", "nope")
    assert result.stderr.startswith("error: Pulumi.nope.yaml: ")
    assert result.exit_code == code


def make(*arguments):
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.check_output(["make", *arguments], cwd=ROOT, env=environment, text=True)


def test_bare_make_shows_every_target():
    targets = re.search(r"^\.PHONY: (.*)", MAKEFILE, flags=re.MULTILINE)[1].split()
    shown = make().splitlines()
    assert {line.split()[0] for line in shown} == set(targets)
    assert all(len(line.split()) > 1 for line in shown)


def test_every_command_that_make_calls_exists():
    called = set(re.findall(r"\$\(RUN\) ([a-z$*-]+)", MAKEFILE)) - {"edge-$*"}
    assert len(called) > 5
    assert called <= COMMANDS.keys()
    for target in ("edge-plan", "edge-flip-back", "edge-health"):
        assert f"-m tools {target} " in make("--dry-run", "--old-file", ".venv/.locked", target)
