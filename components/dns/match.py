"""Which live record is which of ours, and which would be a rival of one."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from components.dns.content import canonical, txt_value
from components.dns.live import Live
from components.dns.records import Record

_EXCLUDES_CNAME = {"A", "AAAA", "CNAME"}  # Cloudflare allows a CNAME beside other types, and answers with its target's (flattening)
_SEVERAL = {"MX", "CAA"}  # a name may have several with other contents
_ROLES = {"spf", "dmarc", "mta-sts", "tlsrpt"}  # keys of TXT records of which a name has one


def matches(ours: Sequence[Record], live: Sequence[Live]) -> dict[str, Live]:
    """Key of each of our records with the live one that it should become: the same content first, else the same role."""
    left = by_name(live)
    found: dict[str, Live] = {}
    for test in (says_the_same, same_role):
        for record in ours:
            rows = left.get(record.name, [])
            if record.key not in found and (hit := next((row for row in rows if test(record, row)), None)):
                found[record.key] = hit
                rows.remove(hit)
    return found


def by_name(live: Iterable[Live]) -> dict[str, list[Live]]:
    found: dict[str, list[Live]] = defaultdict(list)
    for row in live:
        found[row.name].append(row)
    return found


def says_the_same(ours: Record, live: Live) -> bool:
    # SRV and CAA come with tabs or spaces between their parts, whatever was sent.
    return _same_place(ours, live) and stored(live).split() == ours.content.split()


def same_role(ours: Record, live: Live) -> bool:
    """Whether a name may have only one record like these: TXT with the same version tag, a selector's key, an SRV."""
    if not _same_place(ours, live):
        return False
    if ours.type == "TXT":
        version = _version(ours.content)
        return "._domainkey." in ours.name or (version is not None and version == _version(live.content))
    return ours.type not in _SEVERAL


def rivals(ours: Record, live: Sequence[Live]) -> list[Live]:
    """Live records that would be a duplicate of ours, share its mail, or make Cloudflare refuse it."""

    def rival(row: Live) -> bool:
        if says_the_same(ours, row) or same_role(ours, row) or (ours.type == "MX" and _same_place(ours, row)):
            return True
        return row.name == ours.name and "CNAME" in {row.type, ours.type} and {row.type, ours.type} <= _EXCLUDES_CNAME

    return [row for row in live if rival(row)]


def created_again(ours: Record, live: Sequence[Live]) -> Live | None:
    """A live record made by this program that a creation of `ours` would repeat or contradict; those of a unit are deleted first."""
    if ours.unit:
        return None
    # Another key, address, MX, proof or CAA beside those that are live is an ordinary edit.
    one_of_a_kind = ours.key.rpartition(":")[2] in _ROLES or ours.type in {"CNAME", "SRV"}
    return next((row for row in live if row.ours and (says_the_same(ours, row) or (one_of_a_kind and same_role(ours, row)))), None)


def takes_over(ours: Record, live: Live) -> bool:
    """Whether a live record can become ours by a change of what it says, and is not one that others rely on."""
    return says_the_same(ours, live) or same_role(ours, live) or (ours.type in _SEVERAL and _same_place(ours, live))


def stored(row: Live) -> str:
    """The content of a live record in the form that ours have; as it is where that has no such form."""
    try:
        return canonical(row.type, row.content)
    except ValueError:
        return row.content


def _same_place(ours: Record, live: Live) -> bool:
    return (live.name, live.type) == (ours.name, ours.type)


def _version(content: str) -> str | None:
    """`v=spf1` of an SPF record; a proof of ownership has none."""
    value = txt_value(content).strip().lower()
    return value.replace(";", " ").split()[0] if value.startswith("v=") else None
