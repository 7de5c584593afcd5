"""The JSON Schema that editors read: right for both stacks, and wrong where they would be."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from components.settings.site import KEY
from tests.conftest import change
from tools.commands.docs import SCHEMA
from tools.offline.stackfile import ROOT

COMMITTED = json.loads(SCHEMA.read_text("utf-8"))
STACKS = ("dev", "prod")


def stack_file(name: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load((ROOT / f"Pulumi.{name}.yaml").read_text("utf-8"))


def mistakes(document: Any) -> list[jsonschema.ValidationError]:
    return list(jsonschema.Draft7Validator(COMMITTED).iter_errors(document))


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_file_names_the_schema_and_keeps_it(stack: str) -> None:
    first = (ROOT / f"Pulumi.{stack}.yaml").read_text("utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA.relative_to(ROOT)}"
    assert mistakes(stack_file(stack)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mial", {}),
        ("mail/relay/hots", "x"),
        ("mail/relay/port", "587"),
        ("mail/relay/port", 70000),
        ("mail/relay/host", "smtp_relay.example"),
        ("mail/mailboxes", {}),
        ("mail/mailboxes/alice.example", {}),
        ("mail/storage/size", "5GB"),
        ("mail/resources/cpu_request", "1Gi"),
        ("edge", ...),
        ("edge/target", "nowhere"),
        ("secret_store/kind", "Banana"),
        ("secret_store/refresh_interval", "15"),
        ("jobs/probe/schedule", "* * *"),
        ("jobs/retention/rules/0/kind", "spam"),
        ("domains/viktorbarzin.me/dns/srv", ["pop3"]),
        ("cluster/node_ports/pop3", {"proxy": 31125, "health": 31145}),
        ("domains/viktorbarzin.me/dkim", "mail"),
        ("legacy", {"address": "192.0.2.1"}),
    ],
)
def test_a_mistake_is_seen_where_it_is(path: str, value: Any) -> None:
    document = stack_file("prod")
    change(document["config"][KEY], path, value)
    found = mistakes(document)
    assert found
    where = ["config", KEY, *path.split("/")]
    for mistake in found:
        assert all(str(part) == wanted for part, wanted in zip(mistake.absolute_path, where, strict=False)), mistake


def test_an_empty_mailbox_needs_nothing_below_it() -> None:
    document = stack_file("dev")
    document["config"][KEY]["mail"]["mailboxes"]["new@example.org"] = None
    assert mistakes(document) == []


def test_every_default_and_example_is_valid() -> None:
    settings = list(every_setting(COMMITTED))
    assert len(settings) > 200
    for name, schema in settings:
        validator = jsonschema.Draft7Validator({**copy.deepcopy(schema), "$defs": COMMITTED["$defs"]})
        for value in [*([schema["default"]] if "default" in schema else []), *schema.get("examples", [])]:
            assert list(validator.iter_errors(value)) == [], (name, value)


def every_setting(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for block in [*COMMITTED["$defs"].values(), schema["properties"]["config"]["properties"][KEY]]:
        yield from block["properties"].items()
