"""Writes the golden outlines anew: `.venv/bin/python -m tests.program.golden`."""

from tests.program.test_graph import GOLDEN, outline
from tools.offline.program import run
from tools.offline.stackfile import ROOT, load_stack

if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for stack in ("dev", "prod"):
        (GOLDEN / f"{stack}.txt").write_text("\n".join(outline(run(load_stack(ROOT, stack)))) + "\n", encoding="utf-8")
