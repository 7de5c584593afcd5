"""One lab for each test process, known clients in it, and a look into every daemon's log after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from components.errors import UserError
from components.settings.mail import TESTED_IMAGE_MAJORS
from tests.lab.observed import Observed, observation
from tests.lab.probe import Edge, around
from tests.lab.support import Known, Log, image, lab_site
from tools.lab.debian import below
from tools.lab.edge import Lab
from tools.lab.hosts import missing

# Green on both; the others run on 15 until they are.
ON_EVERY_MAJOR = {
    f"test_{name}.py" for name in ("abuse", "client_address", "delivery", "filter", "proxy_header", "pulse", "srs", "submission")
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            if parameters.get("major") == "16" and item.path.name not in ON_EVERY_MAJOR:
                item.add_marker(pytest.mark.skip(reason="not tried on docker-mailserver 16 yet"))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", params=TESTED_IMAGE_MAJORS)
def major(request: pytest.FixtureRequest) -> str:
    """Each tested major version of the image, one after the other: the tests are the same."""
    try:
        below(request.param)
    except UserError as reason:
        pytest.skip(f"docker-mailserver {request.param} has no Debian here: {reason}")
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
