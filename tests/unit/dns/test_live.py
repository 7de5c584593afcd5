"""The listing of a live zone: paging, faults, and what the API refuses, each in one sentence."""

import json
from collections.abc import Iterator

import pytest

from components.dns.live import COMMENT, Live, RefusedError, SilentError, parse, read_zone
from components.dns.match import created_again
from components.dns.records import Record
from tests.standins.cloudflare import Cloudflare

ZONE = "example.org"


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloudflare]:
    api = Cloudflare()
    monkeypatch.setenv("CLOUDFLARE_BASE_URL", api.url)
    yield api
    api.stop()


class Pauses(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def test_every_page_of_a_zone_is_read(api: Cloudflare, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("components.dns.live.PAGE", 2)
    zone_id = api.zone(ZONE)
    for number in range(5):
        api.add(zone_id, name=f"h{number}.{ZONE}", type="A", content="192.0.2.1")
    assert [row.name for row in read_zone(ZONE, zone_id, api.token)] == [f"h{number}.{ZONE}" for number in range(5)]
    assert len(api.calls) == 3


def test_a_row_is_read_whole(api: Cloudflare):
    zone_id = api.zone(ZONE)
    id_ = api.add(zone_id, name=f"Mail.{ZONE}", type="MX", content="MX.example.net.", priority=10, ttl=600, comment=COMMENT)
    (row,) = read_zone(ZONE, zone_id, api.token)
    assert row == Live(id_, f"mail.{ZONE}", "MX", "mx.example.net", 10, 600, False, COMMENT)
    assert row.ours


@pytest.mark.parametrize("faults", [[429], [500, 503]])
def test_a_busy_api_is_asked_again(faults: list[int], api: Cloudflare):
    zone_id, pauses = api.zone(ZONE), Pauses()
    api.faults.extend(faults)
    assert read_zone(ZONE, zone_id, api.token, pauses) == []
    assert len(pauses) == len(faults)


def test_an_api_that_stays_broken_is_left_alone(api: Cloudflare):
    zone_id = api.zone(ZONE)
    api.faults.extend([500] * 9)
    with pytest.raises(SilentError, match="HTTP 500"):
        read_zone(ZONE, zone_id, api.token, Pauses())
    assert len(api.faults) == 6


def test_an_api_that_cannot_be_reached_is_left_alone(api: Cloudflare):
    zone_id = api.zone(ZONE)
    api.stop()
    with pytest.raises(SilentError, match="refused"):
        read_zone(ZONE, zone_id, api.token, Pauses())


REFUSALS = {
    "a wrong zone id": ("f" * 32, None, "dns.zones.example.org.cloudflare: there is no zone with this id; copy the zone id of example.org"),
    "a token of another zone": (
        None,
        "x" * 40,
        "create a token with Zone > DNS > Edit on example.org, or correct dns.zones.",
    ),
    "a token with quotes": (None, '"token"', "CLOUDFLARE_API_TOKEN: is not a token; copy it again"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_says_what_to_do(what: str, api: Cloudflare):
    zone_id, token, expected = REFUSALS[what]
    with pytest.raises(RefusedError) as refusal:
        read_zone(ZONE, zone_id or api.zone(ZONE), token or api.token, Pauses())
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value) and "%s" not in str(refusal.value)


@pytest.mark.parametrize("row", [{"id": "1", "type": "A"}, "text"])
def test_a_record_with_parts_missing_is_refused(row: object):
    with pytest.raises(ValueError, match="record 1 has not all of id, name, type and content"):
        parse([row])


@pytest.mark.parametrize("broken", [{"errors": []}, "text", None])
def test_what_is_not_a_list_of_records_is_refused(broken: object):
    with pytest.raises(ValueError, match="not a list of DNS records"):
        parse(json.loads(json.dumps(broken)))


def test_an_answer_says_how_many_records_there_are():
    row = {"id": "1", "name": ZONE, "type": "TXT", "content": "x"}
    assert parse({"result": [row], "result_info": {"total_count": 181}})[1] == 181
    assert parse([row])[1] == 1


def record(key: str, type_: str, content: str, name: str = ZONE, unit: str | None = None) -> Record:
    return Record(ZONE, key, name, type_, content, unit=unit)


SPF, KEY = ('"v=spf1 mx -all"', '"v=DKIM1; k=rsa; p=AAAA"')
# A record that is to be created, a live one of this program, and whether it is that one again.
AGAIN = {
    "the same": (record("mx-a", "MX", "a.example"), (ZONE, "MX", "a.example"), True),
    "another SPF": (record("spf", "TXT", '"v=spf1 -all"'), (ZONE, "TXT", SPF), True),
    "another host's SPF": (record("mail:spf", "TXT", '"v=spf1 -all"', name=f"mail.{ZONE}"), (f"mail.{ZONE}", "TXT", SPF), True),
    "another target of a relay's selector": (record("dkim-s", "CNAME", "b.example"), (ZONE, "CNAME", "a.example"), True),
    "a second MX": (record("mx-b", "MX", "b.example"), (ZONE, "MX", "a.example"), False),
    "a second address": (record("a-192.0.2.2", "A", "192.0.2.2"), (ZONE, "A", "192.0.2.1"), False),
    "a second proof of the same service": (record("verification-v-2", "TXT", '"v=verify; b"'), (ZONE, "TXT", '"v=verify; a"'), False),
    "a new key under an old selector": (
        record("dkim-s-2", "TXT", '"v=DKIM1; k=rsa; p=BBBB"', name=f"s._domainkey.{ZONE}"),
        (f"s._domainkey.{ZONE}", "TXT", KEY),
        False,
    ),
    "another address of a web host, which is deleted first": (
        record("mta-sts-web", "A", "192.0.2.1", unit="mta-sts-web"),
        (ZONE, "A", "192.0.2.1"),
        False,
    ),
}


@pytest.mark.parametrize("what", AGAIN)
def test_a_creation_repeats_a_live_record_of_ours_or_not(what: str):
    ours, (name, type_, content), again = AGAIN[what]
    live = Live("a" * 32, name, type_, content, comment=COMMENT)
    assert created_again(ours, [live]) == (live if again else None)
    assert created_again(ours, [Live("a" * 32, name, type_, content, comment="of others")]) is None
