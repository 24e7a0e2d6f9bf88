import xml.etree.ElementTree as ET

import pytest
from tools.bench.page import picture, rewrite, write
from tools.bench.results import Figure, Machine, Results, processor, vectors

from tools.bench import page, readme

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
    write(results, tmp_path)
    folder = tmp_path / "a-fast-processor-2-cores"
    text = (folder / "README.md").read_text()
    assert "| one | tokens/s | 40 | 20 | 2.50 (1.50 to 2.50) |" in text
    assert "| one | of memory | 60% |  |  |" in text
    assert "20.0 GB/s" in text
    for name, _, _ in page.PICTURES:
        assert (f"({name}.svg)" in text) == (folder / f"{name}.svg").exists()
    assert "(gaps.svg)" not in text


def test_pages_of_several_processors_are_listed_and_the_newest_is_summed_up(results, tmp_path):
    write(results, tmp_path)
    other = Results(Machine("Old", 4, "Linux"), 2, {"slow": ""}, date="2001-01-01")
    other.add("one", "tokens/s", {"slow": [3.0]})
    write(other, tmp_path)
    text = (tmp_path / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert [row.split("](")[1].split(")")[0] for row in rows] == [
        "a-fast-processor-2-cores/README.md",
        "old-4-cores/README.md",
    ]
    assert list(bars((tmp_path / "summary.svg").read_text())) == [
        "puna, one stream, 135M Q8_0: 40",
        "other & more, one stream, 135M Q8_0: 20",
    ]


def test_saved_results_make_the_same_pages(results, tmp_path):
    write(results, tmp_path)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert len(files) == 7
    for path in files:
        if path.name != "results.json":
            path.unlink()
    rewrite(tmp_path)
    assert files == {path: path.read_bytes() for path in files}


def test_a_processor_is_told_by_its_family_and_its_vectors():
    about = {"model name": "AMD EPYC", "cpu family": "25", "model": "17", "flags": "sse avx2 avx512_vnni"}
    assert processor(about) == "AMD EPYC (family 25, model 17)"
    assert vectors(about) == "AVX-512 VNNI, AVX2"


def test_the_bars_of_a_picture_are_as_long_as_their_medians_ask():
    figures = [
        Figure("one", "tokens/s", {"a": [10.0], "b": [40.0]}),
        Figure("toy", "tokens/s", {"a": [8000.0], "b": [None]}),
    ]
    widths = bars(picture("Tokens & more", figures, ["a", "b"]))
    assert widths["a, one: 10"] == pytest.approx(widths["b, one: 40"] / 4, abs=0.1)
    assert widths["a, toy: 8000"] == widths["b, one: 40"]
    assert len(widths) == 3


def test_the_readme_gets_the_newest_ratios_between_its_marks(results, tmp_path):
    results.add("eight", "tokens/s", {"puna": [90.0, 90.0], "other & more": [30.0, 45.0]})
    path = tmp_path / "README.md"
    path.write_text(f"# Name\n\n{readme.BEGIN}old\n{readme.END}\nMore.\n")
    readme.update(path, results, "results")
    before, _, rest = path.read_text().partition(readme.BEGIN)
    told, _, after = rest.partition(readme.END)
    assert (before, after) == ("# Name\n\n", "\nMore.\n")
    told = " ".join(told.split())
    assert "2 cores" in told
    assert "other & more's 2.00 times for one stream and 2.50 times for eight." in told
    assert "[All results](results/README.md)" in told
    assert "(results/summary.svg)" in told
    readme.update(path, results, "results")
    assert " ".join(path.read_text().partition(readme.BEGIN)[2].partition(readme.END)[0].split()) == told


def test_a_readme_without_marks_is_refused(results, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("# Name\n")
    with pytest.raises(ValueError, match="has no place for the results"):
        readme.update(path, results, "x")
