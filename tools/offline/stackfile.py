"""Reads Pulumi.yaml and Pulumi.<stack>.yaml as the engine does, for running the program without it."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from components.checks.registry import read_site
from components.errors import UserError
from components.settings.site import KEY, Site

ROOT = Path(__file__).parents[2]  # of the project
SECRET_PLACEHOLDER = "[secret]"  # noqa: S105 - shown for every encrypted value; nothing here can or should decrypt it


@dataclass(frozen=True)
class Stack:
    """A stack's name and its configuration: every value as text (objects as JSON), and the keys that are secret."""

    project: str
    name: str
    config: dict[str, str]
    secret_keys: frozenset[str]


def site_of(stack: Stack) -> Site:
    """The stack's settings. Raises UserError."""
    return read_site(stack.config.get(KEY, "{}"))


def load_stack(root: Path, name: str) -> Stack:
    """The stack `name` of the project in `root`. Raises UserError."""
    project = _read(root / "Pulumi.yaml", "there is no project here")
    stacks = sorted(path.name.split(".")[1] for path in root.glob("Pulumi.*.yaml"))
    document = _read(root / f"Pulumi.{name}.yaml", f"there is no stack {name!r}; known: {', '.join(stacks) or 'none'}")
    entries = document.get("config") or {}
    if not isinstance(entries, dict):
        raise UserError(f"Pulumi.{name}.yaml: config must be a map")
    config, secret = {}, set()
    for key, value in entries.items():
        full_key = key if ":" in str(key) else f"{project['name']}:{key}"
        plain, has_secret = _reveal(value)
        config[full_key] = plain if isinstance(plain, str) else _to_json(plain, f"Pulumi.{name}.yaml: {full_key}")
        if has_secret:
            secret.add(full_key)
    return Stack(str(project["name"]), name, config, frozenset(secret))


def write_settings(root: Path, name: str, changes: Mapping[str, Any]) -> None:
    """Put values into the site's settings, by `area/setting`; every other line of the stack file stays as it is."""
    path = root / f"Pulumi.{name}.yaml"
    yaml = YAML()
    yaml.width = 1_000_000
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(path.read_text("utf-8"))
    for place, value in changes.items():
        *parents, last = place.split("/")
        block = document["config"][KEY if KEY in document["config"] else KEY.partition(":")[2]]
        for parent in parents:
            if block.get(parent) is None:
                block[parent] = {}
            block = block[parent]
        block[last] = value
    with tempfile.NamedTemporaryFile("w", dir=root, prefix=f".{path.name}.", encoding="utf-8", delete=False) as stream:
        yaml.dump(document, stream)
    Path(stream.name).chmod(path.stat().st_mode)
    Path(stream.name).rename(path)


def _read(path: Path, missing: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path.name}: {missing}")
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except (MarkedYAMLError, UnicodeDecodeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{path.name}: is not YAML: {getattr(error, 'problem', None) or error}{where}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path.name}: must be a map at its top")
    return document


def _reveal(value: Any) -> tuple[Any, bool]:
    """The value with each `secure: …` replaced by a placeholder, and whether there was one."""
    if isinstance(value, dict):
        if list(value) == ["secure"]:
            return SECRET_PLACEHOLDER, True
        parts = {key: _reveal(part) for key, part in value.items()}
        return {key: part for key, (part, _) in parts.items()}, any(secret for _, secret in parts.values())
    if isinstance(value, list):
        items = [_reveal(part) for part in value]
        return [part for part, _ in items], any(secret for _, secret in items)
    return value, False


def _to_json(value: Any, where: str) -> str:
    def refuse(part: Any) -> None:
        raise TypeError(part)

    try:
        return json.dumps(value, allow_nan=False, sort_keys=True, default=refuse)  # sorted, as the engine hands it over
    except TypeError as error:
        raise UserError(f"{where}: {error} is parsed as a date; put it in quotes") from None
    except ValueError:
        raise UserError(f"{where}: holds a number that is infinite or not a number") from None
