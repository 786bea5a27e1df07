"""Labels of sessions on metrics: where the operator allows the key, and within bounds."""

from __future__ import annotations

import pytest
from wavegate_server import config
from wavegate_server.config import Config
from wavegate_server.telemetry.instruments import CHUNK_RESIDENCE, FIRST_AUDIO, UTTERANCES
from wavegate_server.telemetry.metrics import Metrics
from wavegate_server.telemetry.otlp import _metric
from wavegate_server.telemetry.session_labels import (
    MAX_COMBINATIONS,
    SessionLabels,
    attribute_of,
    prometheus_name_of,
)


def test_only_what_the_operator_allows_is_chosen() -> None:
    labels = SessionLabels(["team", "stage"])
    assert labels.values_of({"team": "red", "customer": "4711", "stage": "beta"}) == ("red", "beta")
    assert labels.values_of({"customer": "4711"}) == ("", "")
    assert SessionLabels().values_of({"team": "red"}) == ()


def test_the_first_combinations_have_series_of_their_own_and_the_rest_share_one() -> None:
    labels = SessionLabels(["team"])
    mine = [labels.values_of({"team": f"t{n}"}) for n in range(MAX_COMBINATIONS + 50)]
    assert len(set(mine)) == MAX_COMBINATIONS + 1
    assert mine[-1] == ("other",)
    assert labels.values_of({"team": "t0"}) == ("t0",), "those that have one keep it"
    assert labels.values_of({}) == ("",), "and a session without labels is none of the others"


def test_an_instrument_of_sessions_has_them_after_its_own() -> None:
    metrics = Metrics(session_labels=[attribute_of("team")])
    metrics.record(UTTERANCES, 1, "completed", "red")
    metrics.record(UTTERANCES, 1, "completed")
    assert metrics.labels_of(UTTERANCES) == ("outcome", "speech.label.team")
    assert dict(metrics.numbers(UTTERANCES)) == {
        ("completed", "red"): 1,
        ("completed", ""): 1,
        ("cancelled", ""): 0,
        ("failed", ""): 0,
    }
    assert metrics.labels_of(CHUNK_RESIDENCE) == CHUNK_RESIDENCE.labels, "too many values for that"
    with pytest.raises(ValueError, match="has the labels"):
        metrics.record(UTTERANCES, 1, "completed", "red", "blue")


def test_over_otlp_they_have_the_name_that_they_have_on_spans() -> None:
    metrics = Metrics(session_labels=[attribute_of("team")])
    metrics.record(FIRST_AUDIO, 0.1, "red")
    metric = _metric(metrics, FIRST_AUDIO, 1)
    assert metric is not None
    attributes = [
        {a.key: a.value.string_value for a in point.attributes} for point in metric.histogram.data_points
    ]
    assert attributes == [{"speech.label.team": ""}, {"speech.label.team": "red"}]


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ("speech.label.team", "speech_label_team"),
        ("speech.label.cost-centre.eu", "speech_label_cost_centre_eu"),
    ],
)
def test_prometheus_has_underscores_for_what_it_does_not_take(attribute: str, name: str) -> None:
    assert prometheus_name_of(attribute) == name


def keys(text: str) -> object:
    (option,) = (option for option in config.options() if option.name == "metric_labels")
    assert option.parse is not None
    return option.parse(text)


def test_the_option_takes_keys_between_commas() -> None:
    assert Config().metric_labels == ()
    assert keys("team, stage") == ("team", "stage")
    assert keys("off") == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "got ''"),
        ("team,", "got ''"),
        ("te am", "got 'te am'"),
        ("team,team", "twice"),
        ("a.b,a-b", "alike"),
        (",".join(f"k{n}" for n in range(9)), "at most 8"),
    ],
)
def test_the_option_says_what_is_wrong(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        keys(text)
