"""What to do about an error of the engine that concerns a DNS record: one line of ours below the engine's many."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from components.dns.live import REMEDIES, remedy

_RECORD = re.compile(r"cloudflare:index/dnsRecord:DnsRecord::(?P<zone>[^/\s\"']+)/(?P<key>[^\s\"'`]+)")
_CODE = re.compile(rf"\b({'|'.join(map(str, REMEDIES))})\b")


def advice(event_log: Iterable[str]) -> Iterator[str]:
    """Lines for a reader, from the lines of an engine's event log (apitype.EngineEvent as JSON). Each is said once."""
    said = dict.fromkeys(text for line in event_log if (event := _event(line)) for text in _about(event))
    yield from said


def _event(line: str) -> dict[str, Any] | None:
    """The diagnostic of a line, if it is an error; the log of an engine that was killed may end within a line."""
    try:
        event = json.loads(line).get("diagnosticEvent")
    except (ValueError, AttributeError):
        return None
    return event if isinstance(event, dict) and event.get("severity") == "error" else None


def _about(event: dict[str, Any]) -> Iterator[str]:
    message = str(event.get("message", ""))
    record = _RECORD.search(f"{event.get('urn', '')} {message}")
    if record is None:
        return
    zone, key = record["zone"], record["key"]
    if "marked for protection" in message:
        yield f"dns.zones.{zone}.release: {key!r} is protected, because mail depends on it; list it, run `up`, then make the change"
    for code in _CODE.findall(message)[:1]:
        yield f"{remedy(int(code), zone)} [{zone}/{key}]"
