"""What can be said of compose.yaml without a container engine: its parts fit each other."""

from __future__ import annotations

import json
import re

from tests.support import tools

COMPOSE = (tools.ROOT / "compose.yaml").read_text()
DEPLOY = tools.ROOT / "deploy"


def test_images_are_pinned() -> None:
    images = re.findall(r"^    image: (\S+)$", COMPOSE, re.MULTILINE)
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"[\w/]+:(speech|v?\d+\.\d+\.\d+)", image), image


def test_the_jaeger_is_the_one_that_is_built() -> None:
    """Module v1.76.0 and image 2.13.0 are one release, so both run the same configuration."""
    (built,) = re.findall(
        r'^VERSION: Final = "(.+)"$', (tools.ROOT / "scripts/jaeger.py").read_text(), re.MULTILINE
    )
    assert f"jaegertracing/jaeger:{built}\n" in COMPOSE


def test_ports_are_published_on_loopback_alone() -> None:
    published = re.findall(r"^      - (\S+:\d+)$", COMPOSE, re.MULTILINE)
    assert len(published) == 4
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port


def test_what_is_mounted_is_there() -> None:
    mounts = re.findall(r"^      - (\./\S+):(/\S+):ro$", COMPOSE, re.MULTILINE)
    assert len(mounts) == 5
    for path, _ in mounts:
        assert (tools.ROOT / path).exists(), path
    inside = {target for _, target in mounts}
    for target in re.findall(r"(?:--config\.file=|--config, )([\w./]+)", COMPOSE):
        assert target in inside
    assert re.findall(
        r"path: (\S+)", (DEPLOY / "grafana/provisioning/dashboards/wavegate.yaml").read_text()
    ) == ["/var/lib/grafana/dashboards"]


def test_the_parts_find_each_other() -> None:
    """Host names in the configurations are services, at the ports that those have."""
    ports = {"gateway": "9464", "jaeger": "16686", "prometheus": "9090"}
    configurations = [
        COMPOSE,
        (DEPLOY / "grafana/provisioning/datasources/wavegate.yaml").read_text(),
        (DEPLOY / "prometheus/prometheus.yaml").read_text(),
    ]
    services = set(re.findall(r"^  (\w+):$", COMPOSE, re.MULTILINE))
    found = [f for text in configurations for f in re.findall(r"(?:http://|\")(\w+):(\d+)\b", text)]
    assert {host for host, _ in found} == {"gateway", "jaeger", "prometheus"} <= services
    for host, port in found:
        assert port in (ports[host], "4317"), (host, port)


def test_the_dashboard_uses_the_data_sources_that_are_provisioned() -> None:
    sources = (DEPLOY / "grafana/provisioning/datasources/wavegate.yaml").read_text()
    uids = set(re.findall(r"^    uid: (\w+)$", sources, re.MULTILINE))
    assert uids == {"prometheus", "jaeger"}
    dashboard = json.loads((DEPLOY / "grafana/dashboards/wavegate.json").read_text())
    (choice,) = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    assert choice["current"]["value"] in uids
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{choice['name']}}}"}
            assert panel["description"], panel["title"]


def test_no_panel_covers_another() -> None:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/wavegate.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
