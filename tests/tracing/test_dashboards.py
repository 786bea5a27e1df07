"""Every expression of the dashboard and of the alert rules, in a real Prometheus that scrapes real metrics."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import wavegate
from wavegate_server.telemetry import instruments
from wavegate_server.telemetry.instruments import Instrument, Kind

from tests.support import expressions, tools
from tests.support.process import running
from tests.support.prometheus import Prometheus, running_prometheus

DEPLOY = tools.ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yaml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "dashboards" / "wavegate.json").read_text())
ALERT_TESTS = Path(__file__).with_name("alerts.yaml")

# What Grafana puts in.
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*"}
# What Prometheus itself adds to whatever it scrapes.
OWN_METRICS = {"up"}
OWN_LABELS = {"job", "instance"}

pytestmark = pytest.mark.timeout(tools.BUILD_PATIENCE_S)


def dashboard_expressions() -> dict[str, str]:
    """Panel and legend → expression as Grafana would send it."""
    found = {
        f"{panel['title']}: {target['legendFormat'] or target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    }
    for name, value in VARIABLES.items():
        found = {where: expression.replace(name, value) for where, expression in found.items()}
    return found


EXPRESSIONS = dashboard_expressions()


TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
UNITS = {"s": "_seconds", "By": "_bytes"}
LABEL_VALUES = {
    "kind": ("tts", "stt"),
    "direction": ("in", "out"),
    "outcome": ("completed", "dropped", "sent"),
    "reason": ("UPSTREAM_UNAVAILABLE",),
    "account": ("1", "2"),
    "rpc_method": ("wavegate.speech.v1.SynthesisService/SynthesizeStream",),
    "rpc_response_status_code": ("OK", "UNAVAILABLE"),
}


class Exposition:
    """Every instrument as OpenMetrics, with series of each; each scrape finds more of it."""

    def __init__(self) -> None:
        self._scrapes = 0

    def text(self) -> str:
        self._scrapes += 1
        lines = [line for instrument in instruments.ALL for line in self._family(instrument)]
        return "\n".join([*lines, "# EOF", ""])

    def _family(self, instrument: Instrument) -> Iterator[str]:
        name = instrument.name.replace(".", "_") + UNITS.get(instrument.unit, "")
        yield f"# TYPE {name} {instrument.kind.name.lower()}"
        labels = [label.replace(".", "_") for label in instrument.labels]
        for values in itertools.product(*(LABEL_VALUES[label] for label in labels)):
            yield from self._series(instrument, name, dict(zip(labels, values, strict=True)))

    def _series(self, instrument: Instrument, name: str, labels: dict[str, str]) -> Iterator[str]:
        def of(labels: dict[str, str]) -> str:
            return "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"

        match instrument.kind:
            case Kind.GAUGE:
                yield f"{name}{of(labels)} 2"
            case Kind.COUNTER:
                yield f"{name}_total{of(labels)} {3 * self._scrapes}"
            case Kind.HISTOGRAM:
                count = 7 * self._scrapes
                for le in (*instrument.buckets, "+Inf"):
                    exemplar = f' # {{trace_id="{TRACE_ID}"}} {le}' if le == instrument.buckets[0] else ""
                    yield f"{name}_bucket{of({**labels, 'le': str(le)})} {count}{exemplar}"
                yield f"{name}_sum{of(labels)} {0.05 * count}"
                yield f"{name}_count{of(labels)} {count}"


@contextmanager
def serving(exposition: Exposition) -> Iterator[str]:
    """`/metrics` on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exposition.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def some_sessions(target: str) -> None:
    """Speak, interrupt, listen, and ask for what is not there: something for every panel."""
    async with wavegate.Client(target) as client:
        async with client.synthesize(voice_id="magnus") as session:
            spoken = await (await session.say("Hello, dashboard.")).read()
            story = await session.say("A story that nobody hears the end of. " * 20)
            async for _ in story.audio():
                await story.cancel()
            await story.wait()
        async with client.transcribe(
            language_code="en", audio_format=wavegate.AudioFormat("LINEAR16", 24000)
        ) as listening:
            await listening.send_audio(spoken)
            await listening.finalize()
        with pytest.raises(wavegate.WavegateError):
            await client.get_session("nobody")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["table", "gateway"])
async def target(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Whose `/metrics` is scraped, `host:port`: one with series of every instrument and label, and a real gateway
    that has done some work."""
    if request.param == "table":
        with serving(Exposition()) as found:
            yield found
    else:
        async with running(
            *("--upstream", "local", "--local-engine", "deterministic"),
            *("--metrics-listen", "127.0.0.1:0"),
        ) as gateway:
            await some_sessions(gateway.target)
            yield gateway.http.removeprefix("http://")


@pytest.fixture(scope="module")
def prometheus(target: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path_factory.mktemp("prometheus"), target, RULES) as found:
        # Two scrapes, so that there are rates; and every rule evaluated.
        tools.wait_until(
            lambda: (
                any(float(s["value"][1]) >= 3 for s in found.query("count_over_time(up[1m])"))
                and all(rule["health"] != "unknown" for rule in found.rules())
            ),
            "Prometheus has scraped",
        )
        assert [s["value"][1] for s in found.query("up")] == ["1"], found.get("targets")
        yield found


def problems_of(expression: str, prometheus: Prometheus) -> list[str]:
    """Names in an expression that the scrape does not have."""
    families = prometheus.families()
    known = OWN_METRICS | set(families)
    for name, kind in families.items():
        if kind == "histogram":
            known |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
        elif kind == "counter":
            known.add(f"{name}_total")  # OpenMetrics names the family without it
    metrics = expressions.metrics(expression)
    assert metrics, f"no metric found in {expression}"
    found = [f"there is no metric {name}" for name in sorted(metrics - known)]
    # Only where a metric has series can its labels be seen.
    seen = [prometheus.labels_of(name) for name in metrics & known]
    if all(seen):
        has = OWN_LABELS.union(*seen)
        found += [
            f"no metric in it has a label {name}" for name in sorted(expressions.labels(expression) - has)
        ]
    return found


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_a_panel_asks_for_what_there_is(prometheus: Prometheus, where: str) -> None:
    expression = EXPRESSIONS[where]
    assert "$" not in expression, "a variable that this test does not know"
    prometheus.query(expression)
    assert problems_of(expression, prometheus) == []


def test_every_metric_is_on_a_panel() -> None:
    shown = set().union(*map(expressions.metrics, EXPRESSIONS.values()))
    for instrument in instruments.ALL:
        name = instrument.name.replace(".", "_") + UNITS.get(instrument.unit, "")
        ends = {Kind.COUNTER: ("_total",), Kind.GAUGE: ("",), Kind.HISTOGRAM: ("_bucket", "_sum", "_count")}
        assert {name + end for end in ends[instrument.kind]} & shown, f"nobody sees {instrument.name}"


def test_every_alert_asks_for_what_there_is(prometheus: Prometheus) -> None:
    rules = prometheus.rules()
    assert rules
    for rule in rules:
        assert rule["health"] == "ok", rule
        prometheus.query(rule["query"])
        assert problems_of(rule["query"], prometheus) == [], rule["name"]


def test_an_alert_says_what_is_wrong_and_what_to_do(prometheus: Prometheus) -> None:
    for rule in prometheus.rules():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["name"]
        assert rule["annotations"].keys() == {"summary", "description"}, rule["name"]


def test_a_name_that_is_not_there_is_found(prometheus: Prometheus) -> None:
    """This test's own teeth."""
    for expression, problem in {
        "rate(wavegate_nothing_total[1m])": "there is no metric wavegate_nothing_total",
        "wavegate_first_audio_seconds": "",
        "wavegate_first_audio_seconds_total": "there is no metric wavegate_first_audio_seconds_total",
        'sum by (colour) (wavegate_sessions_active{kind="colour"})': "no metric in it has a label colour",
        'wavegate_sessions_active{colour="red"} > 0': "no metric in it has a label colour",
    }.items():
        assert problems_of(expression, prometheus) == ([problem] if problem else []), expression
    with pytest.raises(AssertionError, match="bad_data"):
        prometheus.query("sum by (")


def test_the_choices_of_the_dashboard_are_there(prometheus: Prometheus) -> None:
    """`label_values(METRIC, LABEL)` is Grafana's own; Prometheus gets the two apart."""
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert asked
            assert asked[2] in prometheus.labels_of(asked[1])


def test_a_dot_on_a_panel_leads_to_its_trace(prometheus: Prometheus) -> None:
    """The exemplars carry the label that the data source makes a link to Jaeger of."""
    source = (DEPLOY / "grafana" / "provisioning" / "datasources" / "wavegate.yaml").read_text()
    (label,) = re.findall(r"exemplarTraceIdDestinations:\n\s+- name: (\w+)", source)
    with_dots = [t["expr"] for p in DASHBOARD["panels"] for t in p.get("targets", ()) if t.get("exemplar")]
    assert with_dots
    for expression in with_dots:
        for metric in expressions.metrics(expression):
            found = prometheus.exemplars(metric)
            assert found, metric
            assert all(re.fullmatch("[0-9a-f]{32}", exemplar[label]) for exemplar in found)


def test_each_alert_fires_when_it_should_and_only_then(prometheus: Prometheus) -> None:
    """In promtool's own time, by `alerts.yaml`."""
    promtool = tools.path_of("prometheus.py") / "promtool"
    done = subprocess.run(
        [promtool, "test", "rules", ALERT_TESTS], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    fired = set(re.findall(r'alertname="(\w+)", alertstate="firing"', ALERT_TESTS.read_text()))
    assert fired == {rule["name"] for rule in prometheus.rules()}


def test_the_configuration_that_compose_mounts_is_one(tmp_path: Path) -> None:
    """With the rules where the container has them."""
    config = (DEPLOY / "prometheus" / "prometheus.yaml").read_text()
    here = tmp_path / "prometheus.yaml"
    here.write_text(config.replace("/etc/prometheus/rules.yaml", str(RULES)))
    promtool = tools.path_of("prometheus.py") / "promtool"
    done = subprocess.run(
        [promtool, "check", "config", here], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout
