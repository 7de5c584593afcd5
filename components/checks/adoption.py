"""Rules for `adopt` and `unprotected`: objects of the stack that are named in its settings."""

from collections.abc import Collection
from dataclasses import dataclass

from components.checks.finding import Area, Found
from components.settings.site import Site


@dataclass(frozen=True)
class Adoption:
    """The site, and each `Kind/name` that its program declared."""

    site: Site
    declared: Collection[str]


AREA = Area[Adoption]("adoption", "live objects that are taken over")


@AREA.error("unknown-object", remedy="write Kind/name, such as Namespace/mailserver")
def unknown_object(adoption: Adoption) -> Found:
    """An entry of `adopt` or `unprotected` that is not an object of this stack, so it would have no effect."""
    for setting, entries in (("adopt", adoption.site.adopt), ("unprotected", adoption.site.unprotected)):
        for reference in sorted(set(entries) - set(adoption.declared)):
            yield setting, f"this stack has no object {reference}"
