"""The pod's own programs, for tools that have to decide as they do."""

import importlib.util
from typing import Any

from components.errors import UserError
from tools.offline.stackfile import ROOT


def program(name: str) -> Any:
    """The module `scripts/pod/<name>.py`. Those run alone in a pod, so they are in no package and cannot be imported by name."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/pod/{name}.py")
    if spec is None or spec.loader is None:
        raise UserError(f"scripts/pod/{name}.py: is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
