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
    """An entry of `adopt` or `unprotected` that is no object of this stack, so that it has no effect."""
    for setting, entries in (("adopt", adoption.site.adopt), ("unprotected", adoption.site.unprotected)):
        for reference in sorted(set(entries) - set(adoption.declared)):
            yield setting, f"this stack has no object {reference}"


_NOT_IMPORTED = {
    "ConfigMap": "its content would be written into the plan and the state, and a predecessor's holds passwords",
    "Secret": "its content would be written into the plan and the state",
    "ExternalSecret": "an import sees nothing of what a custom resource's former owner had set, and would leave it in place",
}


@AREA.error("never-imported")
def never_imported(adoption: Adoption) -> Found:
    """Objects whose import would copy secrets into the state, or leave a former owner's fields in place; the program makes its own."""
    for entry in adoption.site.adopt:
        kind, _, name = entry.partition("/")
        if reason := _NOT_IMPORTED.get(kind):
            command = f"kubectl -n {adoption.site.namespace} delete --cascade=orphan {kind.lower()} {name}"
            yield "adopt", f"{entry}: {reason}", f"remove the entry and, if the program's own object has this name, the old one: {command}"
