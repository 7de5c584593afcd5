"""The pod's own programs, for tools that have to decide as they do."""

import importlib
import sys
from typing import Any

from tools.offline.stackfile import ROOT

SCRIPTS = ROOT / "scripts/pod"


def program(name: str) -> Any:
    """The module `scripts/pod/<name>.py`. In the pod it lies beside those that it imports; here the folder is behind all others."""
    if str(SCRIPTS) not in sys.path:
        sys.path.append(str(SCRIPTS))
    return importlib.import_module(name)
