"""DNS without a network: our own records as they will be, other people's as a snapshot holds them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, cast

import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.rrset
from pydantic import Field

from components.dns.records import Record, zone_of
from components.dns.zonefile import AUTOMATIC_TTL, rdata
from components.settings.dns import Zone
from components.settings.types import Fqdn, Model

MAX_CHAIN = 8  # CNAMEs in a row; resolvers give up at about this many
STALE_DAYS = 90

# The assumed answer for a name without data: the verification goes on and lists the name instead of inventing a fault.
_STAND_INS = {"TXT": '"v=spf1 ?all"', "MX": "0 unknown.invalid.", "A": "192.0.2.1"}
_AUTHORISATION = '"v=DMARC1"'


class Snapshot(Model):
    """What other people's DNS said when the snapshot was taken."""

    taken: date | None = Field(default=None, description="day of the look; null: never")
    names: dict[str, dict[str, tuple[str, ...]]] = Field(
        default={}, description="name to type to the records' data in presentation form; an empty list: no such record"
    )


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in a file; an empty one where there is no file. Raises ValueError for an invalid file."""
    if not path.is_file():
        return Snapshot()
    return Snapshot.model_validate_json(path.read_text("utf-8"))


def write_snapshot(snapshot: Snapshot, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(snapshot.model_dump(mode="json"), indent=2, sort_keys=True) + "\n", encoding="utf-8")


class OfflineResolver(dns.resolver.Resolver):
    """A resolver for libraries that ask DNS. It opens no socket; `unknown` collects what it could not answer."""

    def __init__(self, records: Iterable[Record], zones: Mapping[Fqdn, Zone], snapshot: Snapshot) -> None:
        super().__init__(configure=False)
        self._zones = zones
        self._snapshot = snapshot
        self._ours: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            self._ours[record.name][record.type].append(rdata(record))
        self._parents = {name.split(".", depth)[-1] for name in self._ours for depth in range(1, name.count(".") + 1)}
        self.unknown: dict[tuple[str, str], None] = {}

    def resolve(self, qname: Any, rdtype: Any = "A", *_: Any, **__: Any) -> dns.resolver.Answer:
        """As the parent's. Raises NXDOMAIN and NoAnswer for what is known to be missing."""
        kind = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rdtype))
        asked = dns.name.from_text(str(qname).rstrip("."))
        response = dns.message.make_response(dns.message.make_query(asked, kind))
        name = str(asked).rstrip(".").lower()
        for _hop in range(MAX_CHAIN):
            data = self._data(name, kind)
            if data is not None:
                if not data:
                    break
                response.answer.append(dns.rrset.from_text_list(f"{name}.", AUTOMATIC_TTL, "IN", kind, data))
                # Through the wire form, because a message finds only what was read into it.
                heard = cast(dns.message.QueryMessage, dns.message.from_wire(response.to_wire()))
                return dns.resolver.Answer(asked, dns.rdatatype.from_text(kind), dns.rdataclass.IN, heard)
            target = self._data(name, "CNAME")
            if not target:
                raise dns.resolver.NXDOMAIN(qnames=[asked], responses={asked: response})
            response.answer.append(dns.rrset.from_text_list(f"{name}.", AUTOMATIC_TTL, "IN", "CNAME", target))
            name = target[0].rstrip(".").lower()
        raise dns.resolver.NoAnswer(response=response)

    def alias(self, name: str) -> str | None:
        """The target of a foreign name's CNAME; None where it has none, or where that is not known yet."""
        held = self._snapshot.names.get(name, {}).get("CNAME")
        if held is None:
            self.unknown[name, "CNAME"] = None
        return held[0].rstrip(".") if held else None

    def _data(self, name: str, kind: str) -> list[str] | None:
        """The records' data, an empty list when the name has none of this type, None when the name has a CNAME or is not there."""
        if name in self._ours:
            there = self._ours[name]
            return there.get(kind, None if "CNAME" in there else [])
        if name in self._parents:
            return []
        held = self._snapshot.names.get(name, {})
        if kind in held or "CNAME" in held:
            return list(held[kind]) if kind in held else None
        zone = zone_of(name, self._zones)
        if zone is not None and not self._zones[zone].other_records:
            return None
        return self._assumed(name, kind)

    def _assumed(self, name: str, kind: str) -> list[str]:
        if kind not in _STAND_INS or name.startswith("_dmarc."):
            return []
        self.unknown[name, kind] = None
        return [_AUTHORISATION if "._report._dmarc." in name else _STAND_INS[kind]]
