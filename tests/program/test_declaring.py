"""A program that is refused has registered nothing, and what is judged is what would be sent."""

import gc
import json

import pulumi
import pytest

from components import declaring
from tests.conftest import change, settings
from tools.offline import program
from tools.offline.stackfile import Stack


@pytest.fixture
def registered(monkeypatch):
    """Names of what reaches the engine, also where the program fails."""
    names: list[str] = []
    register = program._Monitor.RegisterResource

    def see(self, request):
        if request.type != program.STACK_TYPE:
            names.append(request.name)
        return register(self, request)

    monkeypatch.setattr(program._Monitor, "RegisterResource", see)
    return names


def up(changes):
    base = settings("prod")
    for path, value in changes.items():
        change(base, path, value)
    stack = Stack("mailserver", "prod", {"mailserver:site": json.dumps(base)}, frozenset())
    return program.run_once(stack, program.run_main, preview=False)


def test_an_object_that_breaks_a_rule_stops_an_up_before_its_first_resource(registered, caplog):
    with pytest.raises(pulumi.RunError) as refused:
        up({"jobs/python_image": "docker.io/library/python:latest"})
    assert "CronJob/spam-retention retention: image docker.io/library/python:latest has no fixed tag" in str(refused.value)
    assert registered == []
    gc.collect()
    assert caplog.records == [], "asyncio complains of tasks that were not awaited"


def test_a_refusal_on_the_last_line_of_the_program_stops_it_too(registered):
    with pytest.raises(pulumi.RunError, match="this stack has no object Deployment/mailsrever"):
        up({"adopt": ["Deployment/mailsrever"]})
    assert registered == []


def test_a_fault_of_the_program_itself_keeps_its_own_traceback(registered, monkeypatch):
    monkeypatch.setattr("components.jobs.component.Jobs._claim", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        up({})
    assert registered == []


def test_a_fault_in_a_rule_ends_the_run_and_leaves_no_resource_waiting(registered, monkeypatch):
    monkeypatch.setattr(declaring, "Rendered", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        up({})
    assert registered == []


def test_what_is_judged_is_what_is_sent(registered, monkeypatch):
    judged = []

    def see(site, declared):
        judged.extend(declared)
        return declaring_rendered(site, declared)

    declaring_rendered = declaring.Rendered
    monkeypatch.setattr(declaring, "Rendered", see)
    sent = [resource for resource in up({}).resources if resource.type.startswith("kubernetes:")]

    def label(manifest):
        return manifest["kind"], manifest["metadata"]["name"]

    by_label = {label(thing.manifest): thing for thing in judged}
    assert by_label.keys() == {label(resource.inputs) for resource in sent}
    for resource in sent:
        thing = by_label[label(resource.inputs)]
        assert thing.manifest == resource.inputs
        assert bool(thing.options["protect"]) == resource.options.get("protect", False)
        assert bool(thing.options["retainOnDelete"]) == resource.options.get("retainOnDelete", False)
