"""Whole stacks as reviewable YAML: every resource with its options, dependencies and inputs, and the exports.

`make golden` writes the files anew; the test compares them with what the program registers now.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.mail.component import POD_SCRIPTS
from tests.conftest import change, recording_of, settings
from tools.commands.render import yaml_text
from tools.offline.program import Recording

FOLDER = Path(__file__).parent / "golden"

ROLLED_BACK = {"edge/legacy": {"address": "10.0.20.202"}, "edge/target": "legacy"}
BANS = {"edge/bans": {"crowdsec": {"lapi": "http://crowdsec-service.crowdsec:8080"}, "allow": ["192.0.2.0/24"]}}
VARIANTS = {"prod-legacy": ROLLED_BACK, "prod-bans": BANS}
STACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "dev": ("dev", {}),
    "prod": ("prod", {}),
    **{name: ("prod", changes) for name, changes in VARIANTS.items()},
}

# These change with every edit of a script or a text, which have tests of their own.
DIGESTS = {"checksum/config", "agent"}

Outline = dict[str, Any]


def texts() -> dict[str, str]:
    """What each golden file has to hold, by file name. A variant is shown as what it changes."""
    outlines = {name: outline(_record(stack, changes)) for name, (stack, changes) in STACKS.items()}
    outlines |= {name: difference(outlines["prod"], outlines[name]) for name in VARIANTS}
    return {f"{name}.yaml": yaml_text(content) for name, content in outlines.items()}


def _record(stack: str, changes: Mapping[str, Any]) -> Recording:
    base = settings(stack)
    for path, value in changes.items():
        change(base, path, value)
    return recording_of(json.dumps(base), stack)


def outline(recording: Recording) -> Outline:
    scripts = {path.read_text("utf-8"): path.name for path in POD_SCRIPTS.iterdir() if path.is_file()}
    resources = {}
    for resource in recording.resources:
        shown: dict[str, Any] = {"parent": _short(resource.parent)} if resource.parent else {}
        shown |= _options(resource.options)
        if resource.secret_inputs:
            shown["secretInputs"] = list(resource.secret_inputs)
        if resource.inputs:
            shown["inputs"] = _reviewable(resource.inputs, scripts)
        if resource.urn in recording.outputs:
            shown["outputs"] = recording.outputs[resource.urn]
        resources[_short(resource.urn)] = shown
    return {"exports": recording.exports, "resources": resources}


def _options(options: Mapping[str, Any]) -> Outline:
    shown = dict(options)
    if urns := options.get("dependencies"):
        shown["dependencies"] = [_short(urn) for urn in urns]
    # The SDK's own: the names that Kubernetes once had for the same type.
    shown["aliases"] = [alias for alias in options.get("aliases", []) if "kubernetes:" not in alias.get("spec", {}).get("type", "")]
    return {key: value for key, value in shown.items() if value}


def difference(before: Outline, after: Outline) -> Outline:
    """The resources of `after` that are new or not the same, the names of those that are gone, and the exports."""
    known, there = before["resources"], after["resources"]
    return {
        "exports": after["exports"],
        "gone": sorted(known.keys() - there.keys()),
        "resources": {urn: shown for urn, shown in there.items() if known.get(urn) != shown},
    }


def _short(urn: str) -> str:
    """A URN without stack and project."""
    return urn.split("::", 2)[2]


def _reviewable(value: Any, scripts: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: "(digest)" if key in DIGESTS else _reviewable(part, scripts) for key, part in value.items()}
    if isinstance(value, list):
        return [_reviewable(part, scripts) for part in value]
    return f"(scripts/pod/{scripts[value]})" if value in scripts else value


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
