"""A real Prometheus that scrapes one target, and what it says of queries and rules."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support import tools

CONFIG = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: wavegate
    metrics_path: /metrics
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """Asks the HTTP API."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def get(self, path: str, **params: str) -> Any:
        """The `data` of an answer; a refusal fails with Prometheus's own words."""
        answer = self._http.get(f"/api/v1/{path}", params=params).json()
        assert answer["status"] == "success", f"{params}: {answer['errorType']}: {answer['error']}"
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series or the one value that an expression is now."""
        data = self.get("query", query=expression)
        found: list[dict[str, Any]] = (
            [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]
        )
        return found

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def families(self) -> dict[str, str]:
        """Metric families of the scrape and their types, also of those that have no series yet."""
        return {name: found[0]["type"] for name, found in self.get("metadata").items()}

    def labels_of(self, metric: str) -> set[str]:
        """Names of the labels that its series have; empty where it has none yet."""
        return {name for series in self.get("series", **{"match[]": metric}) for name in series}

    def exemplars(self, metric: str) -> list[dict[str, str]]:
        """Labels of the exemplars of a metric's series."""
        found = self.get("query_exemplars", query=metric, start="0", end="9999999999")
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    def is_ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running_prometheus(folder: Path, target: str, rules: Path) -> Iterator[Prometheus]:
    """Scrape `host:port` each second into `folder`, with the rules of a file."""
    binary = tools.path_of("prometheus.py") / "prometheus"
    config = folder / "prometheus.yaml"
    config.write_text(CONFIG.format(rules=rules, target=target))
    (port,) = tools.free_ports(1)
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                *(binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
                *(f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"),
            ],
            stdout=file,
            stderr=file,
        )
    try:
        found = Prometheus(f"http://127.0.0.1:{port}")

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return found.is_ready()

        tools.wait_until(ready, "Prometheus answers")
        yield found
    finally:
        process.terminate()
        process.wait(30)
