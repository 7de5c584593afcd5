"""The rules for Loki's ruler in a real Loki: each is accepted, and its line fires it and no other."""

import json
import shutil
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from components.monitoring.log_alerts import ALERTS
from components.monitoring.texts import log_rules_text
from components.settings.site import Site
from tests.lab.watch import fetch, running, until
from tests.unit.monitoring.test_texts import EVIDENCE, WITH_ISSUER
from tools.lab.servers import free_port

pytestmark = pytest.mark.skipif(shutil.which("loki") is None, reason="needs loki, which Debian does not have")

LINES = 400  # more than any rule waits for
TENANT = "fake"  # Loki's name for everybody, where it asks for no tenant


def config(folder: Path, http: int, grpc: int) -> dict[str, object]:
    """One process that keeps everything in a folder."""
    alone = {"kvstore": {"store": "inmemory"}}
    return {
        "auth_enabled": False,
        "analytics": {"reporting_enabled": False},
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": http,
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": grpc,
        },
        "common": {
            "instance_addr": "127.0.0.1",
            "path_prefix": str(folder),
            "replication_factor": 1,
            "ring": alone,
            "storage": {"filesystem": {"chunks_directory": f"{folder}/chunks", "rules_directory": f"{folder}/rules"}},
        },
        "schema_config": {
            "configs": [
                {
                    "from": "2024-01-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "ruler": {
            "enable_api": True,
            "ring": alone,
            "evaluation_interval": "1s",
            "poll_interval": "1s",
            "rule_path": f"{folder}/scratch",
            "storage": {"type": "local", "local": {"directory": f"{folder}/rules"}},
        },
    }


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address, and the folder of its rules."""
    folder = tmp_path_factory.mktemp("loki")
    rules = folder / "rules" / TENANT
    rules.mkdir(parents=True)
    port = free_port()
    (folder / "loki.yaml").write_text(yaml.safe_dump(config(folder, port, free_port())))
    with ExitStack() as stack:
        process = stack.enter_context(running("loki", f"-config.file={folder}/loki.yaml"))
        until(lambda: "ready" in fetch(f"http://127.0.0.1:{port}/ready"), process)
        yield f"http://127.0.0.1:{port}", rules


def test_the_ruler_accepts_and_evaluates_every_rule(loki: tuple[str, Path], site: Callable[..., Site]) -> None:
    url, rules = loki
    (rules / "mail.yaml").write_text(log_rules_text(site("prod", WITH_ISSUER)))

    def evaluated() -> dict[str, str]:
        groups = json.loads(fetch(f"{url}/prometheus/api/v1/rules"))["data"]["groups"]
        found = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        return found if found and "unknown" not in found.values() else {}

    assert until(evaluated) == {alert.name: "ok" for alert in ALERTS}


def test_a_line_fires_its_alert_and_no_other(loki: tuple[str, Path], site: Callable[..., Site]) -> None:
    """Each line in a namespace of its own, where every rule looks for it."""
    url, _ = loki
    sites = {name: site("prod", WITH_ISSUER | {"namespace": f"mail-{number}"}) for number, name in enumerate(EVIDENCE)}
    now = time.time_ns()
    streams = [
        {
            "stream": {"namespace": sites[name].namespace, "container": "docker-mailserver"},
            "values": [[str(now - number), line] for number in reversed(range(LINES))],
        }
        for name, line in EVIDENCE.items()
    ]
    body = json.dumps({"streams": streams}).encode()
    request = urllib.request.Request(f"{url}/loki/api/v1/push", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()

    def fires(query: str) -> bool:
        words = urllib.parse.urlencode({"query": query, "time": time.time_ns()})
        return bool(json.loads(fetch(f"{url}/loki/api/v1/query?{words}"))["data"]["result"])

    first = next(iter(sites.values()))
    until(lambda: fires(f'count_over_time({{namespace="{first.namespace}"}} [1h]) > 0'))
    found = {name: {alert.name for alert in ALERTS if (query := alert.query(here)) and fires(query)} for name, here in sites.items()}
    assert found == {name: {name} for name in EVIDENCE}
