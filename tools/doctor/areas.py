"""All checks of the doctor, by area. To add one, write a function with a docstring in its area's file."""

from tools.doctor import cluster, delivery, dns, edge, inside, jobs, mail, monitoring, prerequisites, reputation, results, webmail
from tools.doctor.check import Area, Check
from tools.doctor.patient import Patient

# From the cause outwards: among equally bad results, the first is the one to look at.
AREAS: tuple[Area, ...] = (
    cluster.AREA,
    mail.AREA,
    inside.AREA,
    edge.AREA,
    dns.AREA,
    jobs.AREA,
    webmail.AREA,
    monitoring.AREA,
    reputation.AREA,
)
MORE = (prerequisites, delivery, results)  # further checks of the areas cluster, mail and jobs


def checks_for(patient: Patient, only: tuple[str, ...]) -> list[Check]:
    """The checks of these areas (all where none is named), without those that the site has nothing for."""
    site = patient.site
    there = {"dns": site.dns, "reputation": site.dns, "webmail": site.webmail, "inside": patient.errand}
    absent = {name for name, part in there.items() if part is None}
    return [check for area in AREAS if (not only or area.name in only) and area.name not in absent for check in area.checks]
