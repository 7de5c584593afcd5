"""The contracts between layers in pyproject.toml: what may import what."""

import subprocess
import tomllib

import grimp

from tools.offline.stackfile import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]


def test_every_import_respects_the_layers():
    result = subprocess.run([ROOT / ".venv/bin/lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_a_pure_module_reaches_pulumi_by_no_chain_of_imports():
    (contract,) = (contract for contract in CONTRACTS if contract["type"] == "protected")
    graph = grimp.build_graph("components", include_external_packages=True, cache_dir=None)
    thin = {module for expression in contract["allowed_importers"] for module in graph.find_matching_modules(expression)}
    reaching = set().union(*(graph.find_downstream_modules(sdk) for sdk in contract["protected_modules"]))
    assert "components.mail.component" in reaching
    assert reaching - thin == set()
