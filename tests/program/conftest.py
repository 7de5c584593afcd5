"""What the tests of the program share."""

from collections.abc import Callable

import pytest

from tests.conftest import Settings
from tools.offline.program import Recording

WITHOUT_RECORDS = {"test_extensions.py", "test_graph.py", "test_jobs.py", "test_webmail.py"}


@pytest.fixture
def recording(request: pytest.FixtureRequest, recording: Callable[..., Recording]) -> Callable[..., Recording]:
    """Cloudflare's records are a third of a run; files that have nothing to say of them run without."""
    if request.path.name not in WITHOUT_RECORDS:
        return recording

    def make(stack: str = "prod", changes: Settings | None = None) -> Recording:
        zone = {"dns/zones/viktorbarzin.me/cloudflare": None} if stack == "prod" else {}
        return recording(stack, zone | (changes or {}))

    return make
