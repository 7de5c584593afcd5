"""The documentation says what the code says. After a change: `make docs`."""

import re

import pytest
from ruamel.yaml import YAML

from components.settings.site import Site
from components.settings.types import Model
from tools.commands.docs import ALERTS, CHECKS, DOCTOR, PLACES, README, SCHEMA, SETTINGS, schema, with_generated_part
from tools.offline import alerts_page, checks_page, doctor_page, settings_page
from tools.offline.stackfile import ROOT


@pytest.mark.parametrize("page", PLACES)
def test_pictures_and_ports_are_those_of_the_table(page):
    assert with_generated_part(page) == page.read_text("utf-8")


def test_the_page_and_the_schema_of_the_settings_are_those_of_the_models():
    assert settings_page.page() == SETTINGS.read_text("utf-8")
    assert schema() == SCHEMA.read_text("utf-8")


def test_the_page_of_findings_is_that_of_the_rules():
    assert checks_page.page() == CHECKS.read_text("utf-8")


def test_the_page_of_the_doctor_is_that_of_its_checks():
    assert doctor_page.page() == DOCTOR.read_text("utf-8")


def test_the_page_of_alerts_is_that_of_the_table():
    assert alerts_page.page() == ALERTS.read_text("utf-8")


def test_every_link_points_to_a_file():
    for page in (README, *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_two_clicks_away():
    """A tab, then a page of its menu."""
    tabs = YAML(typ="safe").load(ROOT / "mkdocs.yml")["nav"]
    pages = [entry for tab in tabs for menu in tab.values() for entry in menu]
    listed = [next(iter(entry.values())) if isinstance(entry, dict) else entry for entry in pages]
    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/**/*.md"))


def test_every_setting_says_what_it_means():
    models = {model for model in every_subclass(Model) if model.__module__.startswith("components.")}
    assert Site in models
    undescribed = [f"{model.__name__}.{name}" for model in models for name, field in model.model_fields.items() if not field.description]
    assert undescribed == []


def every_subclass(model):
    for child in model.__subclasses__():
        yield child
        yield from every_subclass(child)
