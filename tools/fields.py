"""Where two objects differ, field by field, in words."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 80  # characters of a value
ABSENT = object()


def changed(old: Any, new: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Place, old value and new value of every difference, such as `spec.ports[0].nodePort`, `30125`, `30225`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            yield from changed(old.get(name, ABSENT), new.get(name, ABSENT), f"{place}.{name}" if place else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from changed(one, other, f"{place}[{number}]")
    elif old != new:
        yield place, _shown(old), _shown(new)


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "nothing"
    text = value if isinstance(value, str) and "\n" not in value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
