"""One lab for each test process, known clients in it, and a look into every daemon's log after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import UserError
from components.settings.mail import TESTED_IMAGE_MAJORS
from tests.contract.conftest import edge_site, firewall, make_firewall  # noqa: F401 - fixtures
from tests.lab.observed import Observed, observation
from tests.lab.probe import Edge, around
from tests.lab.support import Known, Log, image, lab_site
from tools.lab.debian import below
from tools.lab.edge import Lab
from tools.lab.hosts import missing

NEWEST = max(TESTED_IMAGE_MAJORS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def _without(major: str) -> str | None:
    """Why docker-mailserver's major version cannot be run here."""
    try:
        below(major)
    except UserError as reason:
        return f"docker-mailserver {major} has no Debian here: {reason}"
    return None


def pytest_runtest_setup(item: pytest.Function) -> None:
    once = item.get_closest_marker("once")
    if once and item.callspec.params["major"] != NEWEST and not _without(NEWEST):
        pytest.skip(f"on docker-mailserver {NEWEST} alone: {once.args[0]}")


@pytest.fixture(scope="session", params=TESTED_IMAGE_MAJORS)
def major(request: pytest.FixtureRequest) -> str:
    """Each tested major version of the image, one after the other: the tests are the same."""
    if reason := _without(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture(scope="session")
def lab(major: str) -> Iterator[Lab]:
    with Lab(lab_site(image(major))) as lab:
        yield lab


@pytest.fixture(scope="session")
def known(lab: Lab) -> Known:
    return Known(lab)


@pytest.fixture
def edge(lab: Lab) -> Iterator[Edge]:
    with around(lab) as edge:
        yield edge


@pytest.fixture
def observed(lab: Lab, edge: Edge, tmp_path: Path) -> Iterator[Observed]:
    with observation(lab, edge, tmp_path / "watch") as observed:
        yield observed


@pytest.fixture(autouse=True)
def log(request: pytest.FixtureRequest) -> Iterator[Log | None]:
    """The lab's log from here on; at the end of the test nothing alarming may be in it that was not expected."""
    if "lab" not in request.fixturenames:
        yield None
        return
    log = Log(request.getfixturevalue("lab").pod)
    yield log
    log.settle()
    assert log.alarms() == []
