"""The Grafana board asks for metrics that exist, with labels that they have."""

import json
import re
from pathlib import Path

import pytest

from puna.metrics.collector import Metrics

FOLDER = Path(__file__).parents[2] / "tools/grafana"
BOARD = json.loads((FOLDER / "puna.json").read_text())
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
NAME = re.compile(r"\b(?:puna:|grpc_server_)\w+")
LABELS = re.compile(r"\{(\w+)=~|by \((\w+)\)")


@pytest.fixture(scope="module")
def declared():
    """The names of all series with the labels that they may have."""
    metrics = Metrics(list, list)
    found = {}
    for collector in metrics._registry._collector_to_names:
        for family in collector.collect():
            labels = {*getattr(collector, "_labels", ("model_name",)), "le"}
            for end in ("", "_total", "_bucket", "_sum", "_count"):
                found[family.name + end] = labels
    metrics.close()
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_what_there_is(declared, query):
    names = NAME.findall(query)
    assert names
    asked = {label for pair in LABELS.findall(query) for label in pair if label}
    for name in names:
        assert asked <= declared[name], name


def test_panels_have_places_of_their_own():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]]
    assert len(set(places)) == len(places) == len(BOARD["panels"])
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(places)


def test_the_file_is_what_the_tool_writes(monkeypatch):
    import runpy

    monkeypatch.setattr("sys.argv", ["make_board.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(FOLDER / "make_board.py"), run_name="__main__")
    assert ended.value.code == 0
