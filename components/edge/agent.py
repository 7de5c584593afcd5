"""The agent's text: one program out of the files under scripts/pfsense."""

import functools
import hashlib
from pathlib import Path

AGENT_DIR = Path(__file__).parents[2] / "scripts" / "pfsense"
# The entry last.
AGENT_FILES = tuple(
    f"{name}.php" for name in ("core", "system", "haproxy", "haproxy_run", "pf", "filters", "redirects", "bans", "rules", "agent")
)


@functools.cache
def agent_program() -> str:
    return "\n?>".join((AGENT_DIR / name).read_text("utf-8").rstrip("\n") for name in AGENT_FILES) + "\n"


@functools.cache
def agent_digest() -> str:
    """Of the agent's text: an input of each resource, so that a new agent shows as a change."""
    return hashlib.sha256(agent_program().encode()).hexdigest()[:16]
