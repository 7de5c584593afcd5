"""What a zone at Cloudflare holds now, asked of its API before anything is declared."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from components.dns.content import name
from components.settings.types import Fqdn

COMMENT = "managed by pulumi: mailserver"  # on every record made here; Cloudflare shows it in its dashboard
RIGHTS = "Zone > DNS > Edit"
TOKEN = "CLOUDFLARE_API_TOKEN"  # noqa: S105 - the variable's name
API = "https://api.cloudflare.com/client/v4"
PAGE = 1000  # records; the API allows far more, but cuts off an answer that takes too long
SHOWN = 60  # characters of a content in messages
TIMEOUT = 15.0  # seconds without a byte
PAUSES = (1.0, 4.0)  # seconds before another try, where the API says that it is busy or broken

_ADOPT = "dns.zones.%s.adopt: the same record is in the zone already; take it over by its id (docs/dns.md), or delete it"
_ZONE = "dns.zones.%s.cloudflare: there is no zone with this id; copy the zone id of %s from Cloudflare's dashboard (Overview)"
_RIGHTS = f"{TOKEN}: is not valid for this zone; create a token with {RIGHTS} on %s, or correct dns.zones.%s.cloudflare"

# The setting to blame for an error code of the API, and what to do; %s is the zone. The numbers are those of its answers.
REMEDIES = {
    81057: _ADOPT,
    81058: _ADOPT,
    81053: "dns.zones.%s.adopt: the name has a record that excludes this one; delete it in the zone, or take it over by its id",
    81054: "dns.zones.%s.adopt: the name has a CNAME, which excludes this record; delete it in the zone",
    81044: "dns.zones.%s.adopt: no live record has this id; correct it, or, if our record was deleted by hand, run `up` with REFRESH=1",
    81045: "dns.zones.%s.record_limit: the plan allows no more records; remove some, or change the plan",
    7000: _ZONE,
    7003: _ZONE,
    9109: _RIGHTS,
    10000: _RIGHTS,
    6003: f"{TOKEN}: is not a token; copy it again, without quotes or blanks (it needs {RIGHTS} on %s)",
    1000: f"{TOKEN}: has expired or was revoked; create one with {RIGHTS} on %s",
}


class RefusedError(Exception):
    """Cloudflare refuses to answer for a zone; the text says why and what to do."""


class SilentError(Exception):
    """Cloudflare gave no usable answer."""


@dataclass(frozen=True)
class Live:
    """A record as the API lists it, its content unchanged."""

    id: str
    name: str
    type: str
    content: str
    priority: int | None = None
    ttl: int = 1
    proxied: bool = False
    comment: str | None = None

    @property
    def ours(self) -> bool:
        return self.comment == COMMENT


def shown(row: Live) -> str:
    """The record, for messages."""
    return f"{row.name} {row.type} {row.content[:SHOWN]}"


def read_zone(zone: Fqdn, zone_id: str, token: str, pause: Callable[[float], None] = time.sleep) -> list[Live]:
    """Every record of the zone. Raises RefusedError for what only a person can change, SilentError for everything else."""
    base = os.environ.get("CLOUDFLARE_BASE_URL", API).rstrip("/")  # the provider reads the same variable
    found: list[Live] = []
    page = 1
    while True:
        answer = _ask(zone, f"{base}/zones/{zone_id}/dns_records?per_page={PAGE}&page={page}", token, pause)
        try:
            rows, total = parse(answer)
        except ValueError as problem:
            raise SilentError(str(problem)) from None
        found += rows
        if not rows or len(found) >= total:
            return found
        page += 1


def parse(answer: Any) -> tuple[list[Live], int]:
    """The records of one answer (or of its `result` alone), and how many there are in all. Raises ValueError."""
    rows = answer.get("result") if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise ValueError("this is not a list of DNS records")  # noqa: TRY004 - of the answer, not of the program
    found = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not {"id", "name", "type", "content"} <= row.keys():
            raise ValueError(f"record {number} has not all of id, name, type and content")
        priority = row.get("priority")
        if priority is None and row["type"] in {"SRV", "URI"} and isinstance(row.get("data"), dict):
            priority = row["data"].get("priority")
        found.append(
            Live(
                id=str(row["id"]),
                name=_name(str(row["name"])),
                type=str(row["type"]),
                content=str(row["content"]),
                priority=int(priority) if isinstance(priority, int | float) else None,
                ttl=int(row["ttl"]) if isinstance(row.get("ttl"), int | float) else 1,
                proxied=bool(row.get("proxied")),
                comment=row.get("comment") or None,
            )
        )
    info = answer.get("result_info") if isinstance(answer, dict) else None
    total = info.get("total_count") if isinstance(info, dict) else None
    return found, total if isinstance(total, int) else len(found)


def _name(text: str) -> str:
    try:
        return name(text)
    except ValueError:  # a name that someone else chose, and that none of ours can be
        return text.lower()


def remedy(code: int, zone: str) -> str | None:
    """What to do about an error code, for a zone; nothing where only Cloudflare's own words are known."""
    text = REMEDIES.get(code)
    return text.replace("%s", zone) if text else None


def _ask(zone: Fqdn, url: str, token: str, pause: Callable[[float], None]) -> Any:
    for wait in (*PAUSES, None):
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - https, or a test's loopback
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            problems = list(_problems(error))
            if error.code < 500 and error.code != 429:
                raise RefusedError(_sentence(zone, error.code, problems)) from None
            said = f"HTTP {error.code}"
        except (OSError, ValueError) as error:
            said = str(getattr(error, "reason", None) or error)
        if wait is None:
            raise SilentError(said)
        pause(wait)
    raise AssertionError("unreachable")


def _problems(error: urllib.error.HTTPError) -> Iterator[tuple[int, str]]:
    try:
        answer = json.load(error)
    except (OSError, ValueError):
        return
    for problem in answer.get("errors") or () if isinstance(answer, dict) else ():
        if isinstance(problem, dict):
            yield int(problem.get("code") or 0), str(problem.get("message") or "")


def _sentence(zone: Fqdn, status: int, problems: list[tuple[int, str]]) -> str:
    known = next((text for code, _ in problems if (text := remedy(code, zone))), f"dns.zones.{zone}.cloudflare: cannot be read")
    said = "; ".join(f"{message} ({code})" for code, message in problems) or f"HTTP {status}"
    return f"{known}; Cloudflare says: {said}"
