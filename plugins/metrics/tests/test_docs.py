"""The list for people and the dashboard name what is exported, and nothing else."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pop3hub_metrics.exposition import expose
from pop3hub_metrics.samples import METRICS

DOCS = Path(__file__).parents[3] / "docs"
SAMPLES = {
    (name, *(f"a {label}" for label in metric.labels)): [1.0] * (len(metric.bounds) + 2)
    for name, metric in METRICS.items()
}


@pytest.fixture(scope="module")
def families():
    return list(text_string_to_metric_families(expose(SAMPLES, "")[0].decode()))


@pytest.fixture(scope="module")
def dashboard():
    return json.loads((DOCS / "grafana" / "pop3hub.json").read_text("utf-8"))


def shown_name(family):
    return family.name + ("_total" if family.type == "counter" else "")


def test_the_page_lists_every_metric_as_it_is_exported(families):
    rows = re.findall(
        r"^\| `(pop3hub_\w+)` \| (\w+) \| (.*?) \| (.+) \|$",
        (DOCS / "metrics.md").read_text("utf-8"),
        re.MULTILINE,
    )

    assert [
        (
            shown_name(family),
            family.type,
            ", ".join(f"`{label}`" for label in METRICS[family.name].labels),
            family.documentation,
        )
        for family in families
    ] == rows


def test_labels_are_exported_under_their_names(families):
    for family in families:
        found = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert set(METRICS[family.name].labels) == found


def test_every_metric_on_the_dashboard_is_exported(families, dashboard):
    exported = {sample.name for family in families for sample in family.samples}
    named = set(re.findall(r"pop3hub_\w+", json.dumps(dashboard)))

    assert set() == named - exported


def test_every_metric_has_a_place_on_the_dashboard(families, dashboard):
    named = json.dumps(dashboard)

    assert [] == [family.name for family in families if family.name not in named]


def test_labels_of_queries_are_labels_of_their_metrics(dashboard):
    """`job` and `instance` are Prometheus' own, `le` a histogram's."""
    known = {label for metric in METRICS.values() for label in metric.labels}
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            used = set(re.findall(r"(\w+)(?:=~|!=|=)\"", target["expr"]))
            for labels in re.findall(r"by \(([^)]*)\)", target["expr"]):
                used |= set(labels.split(", "))
            assert used <= known | {"job", "instance", "le"}, target["expr"]


def test_panels_have_distinct_ids_and_do_not_overlap(dashboard):
    panels = dashboard["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    places = [panel["gridPos"] for panel in panels]
    for place in places:
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )


def test_expressions_of_the_page_name_what_is_exported(families):
    exported = {sample.name for family in families for sample in family.samples}
    exported |= {shown_name(family) for family in families}
    named = set(re.findall(r"pop3hub_\w+", (DOCS / "metrics.md").read_text("utf-8")))

    assert set() == named - exported
