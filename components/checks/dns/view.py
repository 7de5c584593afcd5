"""What a rule of the verification has to work with, and what it answers."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date

from components.checks.dns.resolver import OfflineResolver, Snapshot
from components.dns.records import Record, zones
from components.settings.site import Site


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (`error`: it must not be published) or doubtful, where, what to do, and who says so."""

    error: bool
    where: str
    text: str
    source: str

    def __str__(self) -> str:
        text = " ".join(self.text.split())  # one line, though a library's words may have several
        return f"DNS {self.where}: {text} ({self.source})"


def error(where: str, text: str, source: str) -> Finding:
    return Finding(True, where, text, source)


def warning(where: str, text: str, source: str) -> Finding:
    return Finding(False, where, text, source)


@dataclass
class View:
    """The site, its records as they would be published, and everything that is known about the rest of DNS."""

    site: Site
    records: Sequence[Record]
    snapshot: Snapshot
    today: date
    expiring: Collection[str] = ()  # mailboxes in which automated mail is deleted after a while
    resolver: OfflineResolver = field(init=False)
    by_name: dict[str, list[Record]] = field(init=False)
    delegated: set[str] = field(init=False)  # domains for which a relay signs with a key of its own

    def __post_init__(self) -> None:
        self.resolver = OfflineResolver(self.records, zones(self.site), self.snapshot)
        self.by_name = defaultdict(list)
        for record in self.records:
            self.by_name[record.name].append(record)

        signed = (record.name.partition("._domainkey.")[2] for record in self.records if record.type == "CNAME")
        self.delegated = {domain for domain in signed if domain}

    def at(self, name: str, kind: str) -> list[Record]:
        return [record for record in self.by_name.get(name, ()) if record.type == kind]
