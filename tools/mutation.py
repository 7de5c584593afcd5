"""Breaks random lines of components/ and scripts/ one at a time, and lists those that no test notices: `make mutation`.

Texts with a space in them are left alone: they are words for people. A survivor is either a change without effect or a missing test.
"""

import ast
import copy
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tools.offline.stackfile import ROOT

SECONDS = 3600  # a mutant that hangs is noticed, a slow machine is not taken for one
FOR_PEOPLE = {"description", "encoding", "examples", "help", "remedy", "source"}  # keywords whose loss changes words only

_OPPOSITE: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


# The same for PHP, by the text of a token.
_PHP_OPPOSITE = {"===": "!==", "!==": "===", "==": "!=", "!=": "==", "<": "<=", "<=": "<", ">": ">=", ">=": ">", "&&": "||", "||": "&&"}
_PHP_OPPOSITE |= {"!": "", "true": "false", "false": "true"}


@dataclass(frozen=True)
class Mutant:
    """One change of one expression."""

    file: str
    line: int
    before: str
    after: str
    text: str
    """The whole file with the change."""


def mutants(file: str, text: str) -> Iterator[Mutant]:
    """Every change that is tried in a file."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data = text.encode()
    for node in _expressions(ast.parse(text)):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        for changed in _changes(node):
            before, after = data[start:end].decode(), f"({ast.unparse(changed)})" if isinstance(node, ast.BoolOp) else ast.unparse(changed)
            yield Mutant(file, node.lineno, before, after, (data[:start] + after.encode() + data[end:]).decode())


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions that run: no annotation, no part of a formatted text."""
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns"}:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.expr):
                yield child
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield from _expressions(child)


def _changes(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str(value)) if " " not in value and "\n" not in value:
            yield ast.Constant(f"{value}x")
        case ast.Compare(ops=[operator]) if type(operator) in _OPPOSITE:
            changed = copy.deepcopy(node)
            changed.ops = [_OPPOSITE[type(operator)]()]  # pyright: ignore[reportAttributeAccessIssue] - same family
            yield changed
        case ast.BoolOp(op=operator):
            changed = copy.deepcopy(node)
            changed.op = _OPPOSITE[type(operator)]()  # pyright: ignore[reportAttributeAccessIssue] - same family
            yield changed
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Call(keywords=[_, *_]):
            for index, keyword in enumerate(node.keywords):
                if keyword.arg in FOR_PEOPLE:
                    continue
                changed = copy.deepcopy(node)
                del changed.keywords[index]
                yield changed


def php_mutants(file: str, text: str) -> Iterator[Mutant]:
    """The same for PHP, with PHP's own tokens."""
    code = "echo json_encode(array_map(fn ($t) => is_array($t) ? $t : [0, $t, 0], token_get_all(stream_get_contents(STDIN))));"
    tokens = [token for _, token, _ in json.loads(subprocess.check_output(["php", "-r", code], input=text, text=True))]
    line = 1
    for index, token in enumerate(tokens):
        changed = _PHP_OPPOSITE.get(token)
        if token.isdigit():
            changed = str(int(token) + 1)
        elif re.fullmatch(r"'[^'\\\s]+'", token):
            changed = f"{token[:-1]}x'"
        if changed is not None:
            yield Mutant(file, line, "".join(tokens[index : index + 4]), changed, "".join([*tokens[:index], changed, *tokens[index + 1 :]]))
        line += token.count("\n")


def drawn(seed: int, count: int) -> list[Mutant]:
    """One change in each of `count` lines, the same for the same seed and tree."""
    by_line: dict[tuple[str, int], list[Mutant]] = {}
    for path in sorted([*ROOT.glob("components/**/*.py"), *ROOT.glob("scripts/*/*.p[yh]*")]):
        file = str(path.relative_to(ROOT))
        for mutant in (php_mutants if path.suffix == ".php" else mutants)(file, path.read_text("utf-8")):
            by_line.setdefault((file, mutant.line), []).append(mutant)
    choice = random.Random(seed)  # noqa: S311 - a draw, not a secret
    return [choice.choice(by_line[line]) for line in choice.sample(sorted(by_line), count)]


def tests_for(file: str) -> Iterator[list[str]]:
    """Tests that can see a file, the nearest first."""
    path = Path(file)
    if file.startswith("scripts/"):
        suite, units = ("tests/contract", []) if path.suffix == ".php" else ("tests/lab/jobs", ["tests/unit/pod"])
        own = sorted(str(test.relative_to(ROOT)) for test in (ROOT / suite.removesuffix("/jobs")).rglob(f"test_{path.stem}*.py"))
        yield [*units, *own, suite]
        if path.stem in {"assemble", "common", "passwords", "repository"}:
            yield ["tests/lab/test_set_up.py"]
        return
    area = file.split("/")[1].removesuffix(".py") if "/" in file else ""
    if area and (ROOT / "tests/unit" / area).exists():
        yield [f"tests/unit/{area}"]
    yield ["tests/program/test_golden.py", "tests/program/test_order.py", "tests/program"]
    yield ["tests/unit", "tests/tools"]
    if area == "monitoring":
        yield ["tests/lab/test_alert_rules.py"]
    if area in {"edge", "listeners", "names"}:
        yield ["tests/contract"]


def noticed(mutant: Mutant, checkout: Path) -> str | None:
    """The first test that fails, None where none does."""
    target = checkout / mutant.file
    original = target.read_text("utf-8")
    target.write_text(mutant.text, encoding="utf-8")
    try:
        for tests in tests_for(mutant.file):
            command = [sys.executable, "-B", "-m", "pytest", "-x", "-rfE", "--tb=no", "-o", "addopts=", "-p", "no:cacheprovider", *tests]
            result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, timeout=SECONDS)
            if result.returncode:
                failed = (line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR")))
                return next(failed, "ERROR in the run itself")[:150]
    except subprocess.TimeoutExpired:
        return f"no end in {SECONDS} s"
    finally:
        target.write_text(original, encoding="utf-8")
    return None


@click.command(help=__doc__)
@click.option("--seed", default=1, show_default=True)
@click.option("--count", default=80, show_default=True, help="lines that are broken")
def main(seed: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder)
        # A clone, because some tests ask git for the tree's files.
        subprocess.run(["git", "clone", "--quiet", ROOT, checkout], check=True)
        (checkout / ".venv").symlink_to(ROOT / ".venv")
        unchanged = Mutant("README.md", 0, "", "", (checkout / "README.md").read_text("utf-8"))
        if test := noticed(unchanged, checkout):
            raise click.ClickException(f"fails without any change, so nothing can be learned: {test}")
        survivors = 0
        for mutant in sorted(drawn(seed, count), key=lambda mutant: mutant.file.endswith(".php")):  # a slow suite last
            test = noticed(mutant, checkout)
            survivors += test is None
            print(f"{mutant.file}:{mutant.line}: {mutant.before[:100]!r} -> {mutant.after[:100]!r}: {test or 'SURVIVED'}", flush=True)
    print(f"{count - survivors} of {count} killed")


if __name__ == "__main__":
    main()
