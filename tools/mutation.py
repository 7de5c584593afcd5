"""Breaks random lines of components/ and scripts/pod one at a time, and lists those that no test notices: `make mutation`.

Texts with a space in them are left alone: they are words for people. A survivor is either a change without effect or a missing test.
"""

import ast
import copy
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tools.offline.stackfile import ROOT

SECONDS = 600  # a mutant that hangs is noticed
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


def drawn(seed: int, count: int) -> list[Mutant]:
    """One change in each of `count` lines, the same for the same seed and tree."""
    by_line: dict[tuple[str, int], list[Mutant]] = {}
    for path in sorted([*ROOT.glob("components/**/*.py"), *ROOT.glob("scripts/pod/*.py")]):
        file = str(path.relative_to(ROOT))
        for mutant in mutants(file, path.read_text("utf-8")):
            by_line.setdefault((file, mutant.line), []).append(mutant)
    choice = random.Random(seed)  # noqa: S311 - a draw, not a secret
    return [choice.choice(by_line[line]) for line in choice.sample(sorted(by_line), count)]


def tests_for(file: str) -> Iterator[list[str]]:
    """Tests that can see a file, the quick ones first."""
    if file.startswith("scripts/pod/"):
        name = Path(file).stem
        yield ["tests/unit/pod"]
        yield ["tests/lab/jobs", "tests/lab/test_set_up.py"] if name in {"assemble", "common", "repository"} else ["tests/lab/jobs"]
        return
    area = file.split("/")[1].removesuffix(".py")
    yield ["tests/program/test_golden.py", "tests/program/test_order.py"]
    own = [f"tests/unit/{area}"] if (ROOT / "tests/unit" / area).exists() else []
    yield [*own, "tests/program"]
    yield ["tests/unit", "tests/tools"]
    if area in {"edge", "listeners", "names"}:
        yield ["tests/contract"]


def survives(mutant: Mutant, checkout: Path) -> bool:
    target = checkout / mutant.file
    original = target.read_text("utf-8")
    target.write_text(mutant.text, encoding="utf-8")
    try:
        for tests in tests_for(mutant.file):
            command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
            if subprocess.run(command, cwd=checkout, capture_output=True, check=False, timeout=SECONDS).returncode:
                return False
    except subprocess.TimeoutExpired:
        return False
    finally:
        target.write_text(original, encoding="utf-8")
    return True


@click.command(help=__doc__)
@click.option("--seed", default=1, show_default=True)
@click.option("--count", default=80, show_default=True, help="lines that are broken")
def main(seed: int, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder)
        for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
        (checkout / ".venv").symlink_to(ROOT / ".venv")
        survivors = 0
        for mutant in drawn(seed, count):
            survived = survives(mutant, checkout)
            survivors += survived
            verdict = "SURVIVED" if survived else "killed"
            print(f"{verdict} {mutant.file}:{mutant.line}: {mutant.before[:100]!r} -> {mutant.after[:100]!r}", flush=True)
    print(f"{count - survivors} of {count} killed")


if __name__ == "__main__":
    main()
