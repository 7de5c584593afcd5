"""What several of these tests ask of the stand-in."""

import xml.etree.ElementTree as ET

import pytest

from components.edge.client import AgentError


def refused(firewall, wanted, step, verb="apply", kind="haproxy"):
    """The call is refused at `step`; the configuration stays byte for byte, and what served mail still does."""
    config, listeners = firewall.config_file.read_bytes(), firewall.listeners()
    with pytest.raises(AgentError) as error:
        firewall.client().call(verb, kind, wanted)
    assert error.value.step == step, str(error.value)
    assert firewall.config_file.read_bytes() == config
    assert firewall.listeners() == listeners
    return str(error.value)


def pool_item(root: ET.Element, name: str) -> ET.Element:
    return next(item for item in root.findall("installedpackages/haproxy/ha_pools/item") if item.findtext("name") == name)


def frontend_item(root: ET.Element, name: str) -> ET.Element:
    return next(item for item in root.findall("installedpackages/haproxy/ha_backends/item") if item.findtext("name") == name)
