"""Rules for what is known of other people's DNS."""

from collections.abc import Callable
from datetime import timedelta

from components.checks.dns.resolver import Snapshot
from components.checks.dns.verify import verify
from components.settings.site import Site
from tests.unit.checks.dns.support import (
    OTHERS,
    TODAY,
    said,
)


def test_an_unknown_include_is_named_and_not_held_against_the_site(site: Callable[..., Site]):
    doubts = said(verify(site("prod"), Snapshot(), TODAY), error=False)
    assert any("no snapshot data for" in text and "spf.brevo.com TXT" in text and "make dns-snapshot" in text for text in doubts)


def test_an_old_snapshot_says_its_age(site: Callable[..., Site]):
    old = OTHERS.model_copy(update={"taken": TODAY - timedelta(days=91)})
    assert any("is 91 days old" in text for text in said(verify(site("prod"), old, TODAY), error=False))
    assert not any("days old" in text for text in said(verify(site("prod"), OTHERS, TODAY), error=False))
