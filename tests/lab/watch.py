"""A real Pushgateway, Prometheus and Alertmanager with the rendered rules: which alerts fire, and which reach a person."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from components.monitoring.rules import PROMETHEUS, groups, inhibitions
from components.settings.site import Site
from tools.lab.servers import free_port

PROGRAMS = ("prometheus", "prometheus-pushgateway", "prometheus-alertmanager")
needs_prometheus = pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason=f"needs {', '.join(PROGRAMS)}")

# In place of kube-state-metrics and of the second MX's exporter, which are not ours: job, and what it says.
CLUSTER = {
    "kube-state-metrics": 'kube_deployment_status_replicas_available{namespace="mailserver",deployment="mailserver"} 1\n',
    "backup-mx-smtp": "probe_success 1\n",
}


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def until(happened: Callable[[], Any], process: subprocess.Popen[bytes] | None = None, patience: float = 120) -> Any:
    """What it returns once it is true; the patience only ends a test that would wait forever."""
    end = time.monotonic() + patience
    while True:
        try:
            if found := happened():
                return found
        except OSError:
            pass
        assert process is None or process.poll() is None, "the program ended"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


class Watch:
    """The three programs, and what they say. They and their callers belong to the network of the thread that starts them."""

    def __init__(self, stack: ExitStack, folder: Path, site: Site, address: str = "127.0.0.1") -> None:
        folder.mkdir()
        self.site = site
        self.url, prometheus, alertmanager = (f"http://{address}:{free_port()}" for _ in range(3))
        self.prometheus, self.alertmanager = prometheus, alertmanager
        content = groups(site, PROMETHEUS)
        for rule in (rule for group in content["groups"] for rule in group["rules"]):
            rule["for"] = "0s"  # how long each has to hold is promtool's to test
        (folder / "rules.yaml").write_text(json.dumps(content), encoding="utf-8")
        scrape = [
            {"job_name": "pushgateway", "honor_labels": True, "static_configs": [{"targets": [self.url.removeprefix("http://")]}]},
        ]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": scrape,
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.removeprefix("http://")]}]}]},
        }
        (folder / "prometheus.yaml").write_text(json.dumps(config), encoding="utf-8")
        routes = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}], "inhibit_rules": inhibitions()}
        (folder / "alertmanager.yaml").write_text(json.dumps(routes), encoding="utf-8")
        listen = {name: url.removeprefix("http://") for name, url in (("gateway", self.url), ("p", prometheus), ("a", alertmanager))}
        gateway = stack.enter_context(running("prometheus-pushgateway", f"--web.listen-address={listen['gateway']}"))
        until(lambda: fetch(f"{self.url}/-/ready"), gateway)
        for name, text in CLUSTER.items():
            urllib.request.urlopen(urllib.request.Request(f"{self.url}/metrics/job/{name}", data=text.encode(), method="PUT")).close()
        stack.enter_context(
            running(
                "prometheus-alertmanager",
                *(f"--config.file={folder}/alertmanager.yaml", f"--storage.path={folder}/am", f"--web.listen-address={listen['a']}"),
                "--cluster.listen-address=",
            )
        )
        self._server = stack.enter_context(
            running(
                "prometheus",
                *(f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address={listen['p']}"),
            )
        )

    def query(self, expression: str) -> list[dict]:
        answer = json.loads(fetch(f"{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
        assert answer["status"] == "success"
        return answer["data"]["result"]

    def course(self, expression: str, seconds: float) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Labels, and the values of the last seconds, one a second."""
        end = time.time()
        query = {"query": expression, "start": str(end - seconds), "end": str(end), "step": "1"}
        rows = json.loads(fetch(f"{self.prometheus}/api/v1/query_range?{urllib.parse.urlencode(query)}"))["data"]["result"]
        return [(row["metric"], [(when, float(value)) for when, value in row["values"]]) for row in rows]

    def settled(self) -> None:
        """Every push that was accepted before now is scraped, and the rules have seen it."""
        pushed = max(
            float(line.rpartition(" ")[2]) for line in fetch(f"{self.url}/metrics").splitlines() if line.startswith("push_time_seconds")
        )
        until(lambda: any(float(row["value"][1]) >= pushed for row in self.query("max(push_time_seconds)")), self._server)
        now = time.time()
        until(lambda: all(group["lastEvaluation"] and _epoch(group["lastEvaluation"]) > now for group in self._groups()), self._server)

    def _groups(self) -> list[dict[str, Any]]:
        return json.loads(fetch(f"{self.prometheus}/api/v1/rules"))["data"]["groups"]

    def firing(self) -> set[str]:
        self.settled()
        return {row["metric"]["alertname"] for row in self.query('ALERTS{alertstate="firing"}')}

    def passed_on(self) -> set[str]:
        """What Alertmanager has, less what it inhibits."""
        held = json.loads(fetch(f"{self.alertmanager}/api/v2/alerts?inhibited=false&active=true"))
        return {alert["labels"]["alertname"] for alert in held}

    def told(self, expected: set[str]) -> None:
        """What Alertmanager would pass on becomes this."""
        until(lambda: self.passed_on() == expected)

    def names(self) -> set[str]:
        return set(json.loads(fetch(f"{self.prometheus}/api/v1/label/__name__/values"))["data"])


def _epoch(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()
