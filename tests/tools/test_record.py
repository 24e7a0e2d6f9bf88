"""Each fixture has a recorder, and the recorders find no difference between the fixtures and Puna."""

import json
from pathlib import Path

import pytest
from tests.e2e.server import serving
from tools.record import __main__ as program
from tools.record import fixtures
from tools.record.client import Server
from tools.record.scripted_model import CONTEXT, FIRST, Script, gguf_file, scripts

ROOT = Path(__file__).parents[2]
NOT_RECORDED = ("package.json", "package-lock.json", "tsconfig.json")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("store"), OLLAMA_NO_CLOUD="1") as server:
        yield server


def test_every_fixture_has_a_recorder():
    found = {
        str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.json") if "node_modules" not in path.parts
    }
    found = {name for name in found if not name.endswith(NOT_RECORDED)}
    assert found == fixtures.table().keys() | fixtures.RECORDED_ELSEWHERE.keys()


@pytest.mark.parametrize("name", ["wire.json", "go_errors.json", "streams.json"])
def test_a_recorder_finds_in_a_server_what_the_fixture_holds(server, name, capsys):
    status = program.main([name, "--url", server.url, "--check"])
    assert (capsys.readouterr().out, status) == ("", 0)


def test_recording_renews_answers_and_keeps_requests(server, tmp_path, monkeypatch, capsys):
    name = "tests/rest_bridge/wire.json"
    right = json.loads((ROOT / name).read_text(encoding="utf-8"))[:3]
    file = tmp_path / name
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps([{**case, "status": 1, "body": "old"} for case in right]))
    monkeypatch.setattr(program, "ROOT", tmp_path)
    assert program.main(["wire.json", "--url", server.url, "--check"]) == 1
    assert "[0]['status']: 1 recorded, 200 now" in capsys.readouterr().out
    assert program.main(["wire.json", "--url", server.url]) == 0
    assert json.loads(file.read_text(encoding="utf-8")) == right


def test_a_scripted_model_writes_the_script_at_which_its_prompt_ends(server):
    answers = [["one", " two", " two"], ["é", "one"]]
    [placed] = scripts(answers)
    client = Server(server.url)
    client.create("scripted", gguf_file(placed), template="{{ .Prompt }}")
    try:
        for script, texts in zip(placed, answers, strict=True):
            request = {"model": "scripted", "prompt": "x" * script.start, "raw": True, "options": {"num_ctx": CONTEXT}}
            chunks = list(client.stream("/api/generate", request))
            assert [chunk["response"] for chunk in chunks if chunk["response"]] == texts
            assert chunks[-1]["done_reason"] == "stop"
    finally:
        client.close()


def test_scripts_that_do_not_fit_go_to_another_model():
    long = ["a"] * (CONTEXT - FIRST - 10)
    assert scripts([long, ["b"] * 20]) == [[Script(FIRST, tuple(long))], [Script(FIRST, ("b",) * 20)]]


@pytest.mark.parametrize("name", fixtures.table())
def test_a_fixture_is_written_as_it_stands(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert fixtures.written(json.loads(text), fixtures.table()[name]) == text
