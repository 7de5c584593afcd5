"""The stand-in for Cloudflare's API answers, and refuses, as the published OpenAPI text says."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.standins.cloudflare import Cloudflare
from tests.standins.cloudflare_openapi import FAILURE, GONE, LISTING, ONE, PER_PAGE, REQUIRED, VERBS, request

SRV = {"priority": 0, "weight": 1, "port": 993, "target": "mail.example.org"}
TLSA = {"usage": 3, "selector": 1, "matching_type": 1, "certificate": "ab" * 32}
BODIES: dict[str, dict[str, Any]] = {
    "A": {"name": "www.example.org", "content": "192.0.2.1", "ttl": 1},
    "AAAA": {"name": "www.example.org", "content": "2001:db8::1"},
    "CNAME": {"name": "a.example.org", "content": "b.example.org"},
    "TXT": {"name": "example.org", "content": '"x"'},
    "MX": {"name": "example.org", "content": "mail.example.org", "priority": 10},
    "SRV": {"name": "_imaps._tcp.example.org", "data": SRV},
    "CAA": {"name": "example.org", "data": {"flags": 0, "tag": "issue", "value": "ca.example"}},
    "TLSA": {"name": "_25._tcp.mail.example.org", "data": TLSA},
}


@pytest.fixture
def api() -> Iterator[Cloudflare]:
    api = Cloudflare()
    yield api
    api.stop()


def call(api: Cloudflare, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Authorization": f"Bearer {api.token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{api.url}/zones/{path}", data, headers, method=verb), timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)


def holds(schema: dict[str, Any], answer: Any) -> Any:
    Draft202012Validator(schema).validate(answer)
    return answer


@pytest.mark.parametrize("kind", REQUIRED)
def test_each_operation_answers_in_the_published_form(kind: str, api: Cloudflare):
    records = f"{api.zone('example.org')}/dns_records"
    body = holds(request(kind), {"type": kind, **BODIES[kind]})
    id_ = holds(ONE, call(api, "POST", records, body))["result"]["id"]
    holds(ONE, call(api, "GET", f"{records}/{id_}"))
    changed = holds(ONE, call(api, "PUT", f"{records}/{id_}", body | {"comment": "changed"}))
    assert changed["result"]["comment"] == "changed"
    assert holds(LISTING, call(api, "GET", records))["result_info"]["per_page"] == PER_PAGE
    beyond = holds(LISTING, call(api, "GET", f"{records}?per_page=1&page=2"))
    assert (beyond["result"], beyond["result_info"]["total_count"]) == ([], 1)
    assert holds(GONE, call(api, "DELETE", f"{records}/{id_}"))["result"] == {"id": id_}


@pytest.mark.parametrize("kind", REQUIRED)
def test_a_body_without_a_required_part_is_refused(kind: str, api: Cloudflare):
    records, body = f"{api.zone('example.org')}/dns_records", {"type": kind, **BODIES[kind]}
    for part in REQUIRED[kind]:
        holds(FAILURE, call(api, "POST", records, {name: value for name, value in body.items() if name != part}))
    holds(ONE, call(api, "POST", records, body))


def test_each_refusal_is_in_the_published_form(api: Cloudflare):
    zone, unknown = api.zone("example.org"), "f" * 32
    body = {"type": "A", **BODIES["A"]}
    holds(ONE, call(api, "POST", f"{zone}/dns_records", body))
    for verb, path in (("POST", f"{zone}/dns_records"), ("POST", f"{unknown}/dns_records"), ("PUT", f"{zone}/dns_records/{unknown}")):
        holds(FAILURE, call(api, verb, path, body))
    for verb, path in (("GET", f"{unknown}/dns_records"), ("DELETE", f"{zone}/dns_records/{unknown}"), ("GET", "x")):
        holds(FAILURE, call(api, verb, path))


def test_it_has_no_operation_that_is_not_published(api: Cloudflare):
    zone = api.zone("example.org")
    id_, other = api.add(zone, type="A", **BODIES["A"]), {"type": "A", **BODIES["A"], "content": "192.0.2.9"}
    for path, verbs in VERBS.items():
        for verb in {"GET", "POST", "PUT", "DELETE"} - verbs:
            holds(FAILURE, call(api, verb, f"{zone}/dns_records{path.format(id=id_)}", other))
