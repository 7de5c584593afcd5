"""The memory that a preview demands, against what the daemons take."""

from components.checks.finding import run
from components.checks.registry import SITE_AREAS
from components.settings.mail import Resources
from tools.lab.edge import Lab
from tools.lab.memory import peak_of_two


def test_a_preview_refuses_less_memory_than_two_of_the_largest_messages_take(lab: Lab) -> None:
    taken = f"{peak_of_two(lab) >> 20}Mi"
    mail = lab.site.mail.model_copy(update={"resources": Resources(memory_limit=taken)})
    assert "mail.memory-for-messages" in {finding.code for finding in run(SITE_AREAS, lab.site.model_copy(update={"mail": mail}))}
