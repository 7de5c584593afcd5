"""The real engine with the real Kubernetes provider, which writes manifests to a folder."""

import json

from components.settings.site import KEY
from tools.offline.program import run
from tools.offline.stackfile import ROOT, load_stack


def planned(pulumi) -> dict[str, dict]:
    return {step["urn"]: step for step in json.loads(pulumi("preview", "--json"))["steps"]}


def test_the_engine_reads_the_stack_file_as_we_do(pulumi):
    seen = json.loads(pulumi("config", "--json"))
    assert json.loads(seen[KEY]["value"]) == json.loads(load_stack(ROOT, "dev").config[KEY])


def test_a_render_shows_what_the_engine_plans(pulumi):
    plan = planned(pulumi)
    recorded = {resource.urn: resource for resource in run(load_stack(ROOT, "dev")).resources}
    assert recorded.keys() == {urn for urn in plan if not urn.endswith("::mailserver-dev")}
    for urn, resource in recorded.items():
        state = plan[urn]["newState"]
        assert plan[urn]["op"] == "create"
        assert bool(state.get("protect")) == bool(resource.options.get("protect")), urn
        if resource.type.startswith("kubernetes:"):
            assert state["inputs"] == resource.inputs, urn


def test_an_up_is_followed_by_a_preview_without_changes(pulumi):
    pulumi("up", "--yes", "--skip-preview")
    pulumi("preview", "--expect-no-changes")


def test_a_changed_text_updates_the_config_map_and_the_deployment_in_place(pulumi, checkout):
    stack_file = checkout / "Pulumi.dev.yaml"
    before = stack_file.read_text("utf-8")
    stack_file.write_text(before.replace("team@example.net: [alice@example.org, bob@example.org]", "team@example.net: [bob@example.org]"))
    try:
        changes = {urn.rpartition("::")[2]: step["op"] for urn, step in planned(pulumi).items() if step["op"] != "same"}
    finally:
        stack_file.write_text(before)
    assert changes == {"mail-config-mailserver-config": "update", "mail-deployment": "update"}


def test_bad_settings_stop_the_engine_with_one_message(pulumi, checkout):
    stack_file = checkout / "Pulumi.dev.yaml"
    before = stack_file.read_text("utf-8")
    stack_file.write_text(before.replace("team@example.net: [alice@example.org", "team@example.net: [alcie@example.org"))
    try:
        said = pulumi.refused("preview")
    finally:
        stack_file.write_text(before)
    assert "alcie@example.org is neither a mailbox nor an alias" in said
    assert "Traceback" not in said
