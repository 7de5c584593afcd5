"""A lab that may be hurt: it is of these tests alone, and whole again after each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import UserError
from tests.lab.support import lab_site
from tools.lab.debian import below
from tools.lab.edge import Lab
from tools.lab.hosts import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.load)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    changes = {"mail/message_size_limit": "30Mi", "mail/sending_limit": None}  # all tests together send more than an account may
    site = lab_site(changes | {f"mail/mailboxes/user{number}@example.org": {} for number in range(8)})
    try:
        below(site.mail.image_major)
    except UserError as reason:
        pytest.skip(f"docker-mailserver {site.mail.image_major} has no Debian here: {reason}")
    with Lab(site) as lab:
        lab.wait_until_served()
        yield lab
