"""Rules for `adopt`: live objects that the program takes over."""

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


@AREA.error("unknown-object", remedy="write Kind/name, such as Deployment/mailserver")
def unknown_object(adoption: Adoption) -> Found:
    """An entry of `adopt` that is no object of this stack; nothing would be taken over, and a second object be created beside it."""
    for reference in sorted(set(adoption.site.adopt) - set(adoption.declared)):
        yield "adopt", f"this stack has no object {reference}"
