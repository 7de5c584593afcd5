"""What changes on the firewall, in an administrator's words."""

from collections.abc import Iterator, Mapping
from typing import Any

# Part of a state => what one of its entries is called.
THINGS = {
    "pools": "pool",
    "frontends": "frontend",
    "redirects": "redirect",
    "passes": "rule",
    "bans": "rule",
    "aliases": "alias",
    "cron": "cron job",
}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """One line for each thing and field that changes, `+ ~ -` in front, such as `~ frontend mailserver_proxy_25: bind …`."""
    return [line for kind, thing in THINGS.items() for line in _differences(thing, before.get(kind) or {}, after.get(kind) or {})]


def _differences(thing: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        label = f"{thing} {name}"
        if name not in after:
            yield f"- {label}"
        elif name not in before:
            fields = ", ".join(
                _words(field, value) for field, value in _bind_first(after[name]) if value not in ("", []) and field != "servers"
            )
            yield f"+ {label}: {fields}"
            yield from _differences(f"{label}: server", {}, after[name].get("servers", {}))
        else:
            for field, value in after[name].items():
                old = before[name].get(field, "")
                if field == "servers":
                    yield from _differences(f"{label}: server", old, value)
                elif old != value:
                    yield f"~ {label}: {_word(field)} {_text(value) or 'nothing'} (was {_text(old) or 'nothing'})"


def _bind_first(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(fields.items(), key=lambda field: field[0] != "binds")


def _word(field: str) -> str:
    return {"binds": "bind", "local_port": "local port", "pass_rule": "pass rule"}.get(field, field.replace("_", " "))


def _words(field: str, value: Any) -> str:
    return f"{_word(field)} {_text(value)}" if value not in ("", []) else ""


def _text(value: Any) -> str:
    text = " and ".join(value) if isinstance(value, list) else str(value)
    return text.replace("\n", "; ")
