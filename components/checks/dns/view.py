"""What the rules for DNS look at: the records as they would be published, and everything that is known about the rest."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

from components.checks.dns.resolver import OfflineResolver, Snapshot
from components.dns.content import txt_value
from components.dns.records import Record, zones
from components.settings.site import Site
from components.settings.types import Fqdn

Parsed = TypeVar("Parsed")


@dataclass
class View:
    """The site, its records (or others, such as those that are live), and a resolver that opens no socket."""

    site: Site
    records: Sequence[Record]
    snapshot: Snapshot
    today: date
    resolver: OfflineResolver = field(init=False)
    by_name: dict[str, list[Record]] = field(init=False)
    delegated: set[str] = field(init=False)  # domains for which a relay signs with a key of its own
    expiring: set[str] = field(init=False)  # mailboxes in which automated mail is deleted after a while
    _parsed: dict[tuple[object, ...], Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.resolver = OfflineResolver(self.records, zones(self.site), self.snapshot)
        self.by_name = defaultdict(list)
        for record in self.records:
            self.by_name[record.name].append(record)
        signed = (record.name.partition("._domainkey.")[2] for record in self.records if record.type == "CNAME")
        self.delegated = {domain for domain in signed if domain}
        retention = self.site.jobs.retention
        self.expiring = {rule.mailbox for rule in retention.rules} if retention else set()

    def at(self, name: str, kind: str) -> list[Record]:
        return [record for record in self.by_name.get(name, ()) if record.type == kind]

    def texts(self, name: str, version: str) -> list[str]:
        """The TXT values of `name` that begin like a record of this kind."""
        values = [txt_value(record.content) for record in self.at(name, "TXT")]
        return [value for value in values if value.lower().startswith(version)]

    def senders(self) -> Iterator[tuple[Fqdn, bool]]:
        """Each domain whose records are judged, and whether it is parked."""
        yield from ((domain, False) for domain in self.site.domains)
        yield from ((domain, True) for domain in (self.site.dns.parked if self.site.dns else ()))

    def once(self, parse: Callable[..., Parsed], *key: object) -> Parsed:
        """`parse(self, *key)`, remembered: several rules judge what one parser says."""
        place = (parse, *key)
        if place not in self._parsed:
            self._parsed[place] = parse(self, *key)
        return self._parsed[place]
