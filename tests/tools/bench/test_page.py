import xml.etree.ElementTree as ET

import pytest
from tools.bench.page import picture, write
from tools.bench.results import Figure, Machine, Results

from tools.bench import page

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def results():
    found = Results(Machine("A <fast> processor", 2, "Linux", 20e9), 2, {"puna": "`puna serve`", "other & more": ""})
    found.add("one", "tokens/s", {"puna": [30.0, 50.0], "other & more": [20.0, 20.0]})
    found.add("one", "of memory", {"puna": [0.5, 0.7], "other & more": [None, None]})
    found.add("cold", "first", {"puna": [0.25, 0.25], "other & more": [0.5, 1.0]})
    return found


def bars(svg):
    """Return the width of each bar by its title."""
    root = ET.fromstring(svg)
    return {
        each.find(f"{SVG}title").text: float(each.get("width"))
        for each in root.iter(f"{SVG}rect")
        if each.find(f"{SVG}title") is not None
    }


def test_the_page_has_medians_ratios_and_its_pictures(results, tmp_path):
    write(results, tmp_path / "page")
    text = (tmp_path / "page/README.md").read_text()
    assert "| one | tokens/s | 40 | 20 | 2.50 (1.50 to 2.50) |" in text
    assert "| one | of memory | 60% |  |  |" in text
    assert "20.0 GB/s" in text
    for name, _, _ in page.PICTURES:
        assert (f"({name}.svg)" in text) == (tmp_path / f"page/{name}.svg").exists()
    assert "(gaps.svg)" not in text


def test_saved_results_make_the_same_page(results, tmp_path):
    write(results, tmp_path / "one")
    write(Results.load(tmp_path / "one/results.json"), tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_bars_of_a_picture_are_as_long_as_their_medians_ask():
    figures = [
        Figure("one", "tokens/s", {"a": [10.0], "b": [40.0]}),
        Figure("toy", "tokens/s", {"a": [8000.0], "b": [None]}),
    ]
    widths = bars(picture("Tokens & more", figures, ["a", "b"]))
    assert widths["a, one: 10"] == pytest.approx(widths["b, one: 40"] / 4, abs=0.1)
    assert widths["a, toy: 8000"] == widths["b, one: 40"]
    assert len(widths) == 3
