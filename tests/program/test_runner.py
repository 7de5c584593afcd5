"""Running a program under mocks: every difference from an engine is corrected or reported."""

import json

import pulumi
import pulumi_kubernetes as k8s
import pytest

from components.errors import UserError
from tools.offline.program import run
from tools.offline.stackfile import SECRET_PLACEHOLDER, Stack, load_stack

STACK = Stack("mailserver", "test", {"mailserver:password": "hunter2"}, frozenset({"mailserver:password"}))


def config_map(name: str, data, **options) -> k8s.core.v1.ConfigMap:
    return k8s.core.v1.ConfigMap(name, data=data, opts=pulumi.ResourceOptions(**options))


class Box(pulumi.ComponentResource):
    def __init__(self, name, opts=None):
        super().__init__("mailserver:test:Box", name, {}, opts)


def test_urns_follow_the_parents_as_the_engine_writes_them():
    def program():
        config_map("inner", {}, parent=Box("middle", pulumi.ResourceOptions(parent=Box("outer"))))

    urns = [resource.urn for resource in run(STACK, program).resources]
    assert urns == [
        "urn:pulumi:test::mailserver::mailserver:test:Box$mailserver:test:Box$kubernetes:core/v1:ConfigMap::inner",
        "urn:pulumi:test::mailserver::mailserver:test:Box$mailserver:test:Box::middle",
        "urn:pulumi:test::mailserver::mailserver:test:Box::outer",
    ]


def test_two_resources_of_one_name_are_refused():
    def program():
        config_map("twice", {})
        config_map("twice", {})

    with pytest.raises(UserError, match="two resources have this name"):
        run(STACK, program)


def test_whole_numbers_stay_whole():
    def program():
        k8s.core.v1.Service("s", spec=k8s.core.v1.ServiceSpecArgs(ports=[k8s.core.v1.ServicePortArgs(port=25)]))

    (service,) = run(STACK, program).resources
    assert json.dumps(service.inputs["spec"]["ports"]) == '[{"port": 25}]'


def test_a_secret_is_hidden_and_named():
    def program():
        config_map("m", {"open": "x", "hidden": pulumi.Config().require_secret("password")})

    (found,) = run(STACK, program).resources
    assert "hunter2" not in json.dumps(found.inputs)
    assert SECRET_PLACEHOLDER in json.dumps(found.inputs)
    assert found.secret_inputs == ("data",)


def test_a_value_that_only_an_update_knows_is_refused():
    def program():
        first = config_map("first", {})
        config_map("second", {"id": first.id})

    with pytest.raises(UserError, match=r"second|unknown"):
        run(STACK, program)


def test_a_branch_on_preview_is_refused():
    def program():
        config_map("m", {"preview": str(pulumi.runtime.is_dry_run())})

    with pytest.raises(UserError, match="an unknown value changes what is registered"):
        run(STACK, program)


def test_exports_are_kept_and_secret_ones_hidden():
    def program():
        pulumi.export("shown", pulumi.Output.from_input({"port": 25}))
        pulumi.export("hidden", pulumi.Config().require_secret("password"))

    assert run(STACK, program).exports == {"shown": {"port": 25}, "hidden": SECRET_PLACEHOLDER}


def test_asking_a_provider_for_data_is_refused():
    def program():
        result = pulumi.runtime.invoke_async("x:index:y", {})
        config_map("m", {"answer": pulumi.Output.from_input(result).apply(str)})

    with pytest.raises(Exception, match="asks a provider for data"):
        run(STACK, program)


def test_a_failure_in_an_apply_is_not_lost():
    def program():
        pulumi.Output.from_input(1).apply(lambda _: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run(STACK, program)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "Pulumi.yaml").write_text("name: mailserver\nruntime: python\n")

    def stack(text: str) -> Stack:
        (tmp_path / "Pulumi.t.yaml").write_text(text)
        return load_stack(tmp_path, "t")

    return stack


def test_a_stack_file_is_read_as_the_engine_reads_it(project):
    stack = project("config:\n  mailserver:site: {on: yes, port: 25, list: [1.5, null]}\n  plain: 5\n  flag: true\n")
    assert json.loads(stack.config["mailserver:site"]) == {"on": "yes", "port": 25, "list": [1.5, None]}
    assert stack.config["mailserver:plain"] == "5"
    assert stack.config["mailserver:flag"] == "true"


def test_encrypted_values_become_placeholders_at_any_depth(project):
    stack = project("config:\n  a: {secure: v1:abc}\n  b: {inner: [{secure: v1:abc}]}\n  c: x\n")
    assert stack.config == {
        "mailserver:a": SECRET_PLACEHOLDER,
        "mailserver:b": json.dumps({"inner": [SECRET_PLACEHOLDER]}),
        "mailserver:c": "x",
    }
    assert stack.secret_keys == {"mailserver:a", "mailserver:b"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("config: [", "Pulumi.t.yaml: is not YAML"),
        ("config:\n\ta: 1\n", "Pulumi.t.yaml: is not YAML"),
        ("config:\n  a: 1\n  a: 2\n", "Pulumi.t.yaml: is not YAML"),
        ("- a\n", "Pulumi.t.yaml: must be a map at its top"),
        ("config: 5\n", "Pulumi.t.yaml: config must be a map"),
        ("config:\n  a: {when: 2026-01-01}\n", "2026-01-01 is parsed as a date; put it in quotes"),
    ],
)
def test_an_invalid_stack_file_gets_one_line(project, text, complaint):
    with pytest.raises(UserError) as refused:
        project(text)
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_stack_without_a_file_names_those_there_are(project, tmp_path):
    project("config: {}\n")
    with pytest.raises(UserError, match="no stack 'nope'; known: t"):
        load_stack(tmp_path, "nope")
