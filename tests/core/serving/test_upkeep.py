from pathlib import Path

import pytest

from puna.errors import InvalidCreateError, InvalidModelNameError
from puna.models.store import ModelStore
from puna.models.upkeep.report import Report
from puna.serving.upkeep import Failed, Imported, ImportRequest, Plan, check_store, import_models

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "models").mkdir()
    return ModelStore(tmp_path / "models")


@pytest.fixture
def files(tmp_path):
    """A folder with a model and a file that is none."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "tiny.gguf").write_bytes((MODELS / "scripted.gguf").read_bytes())
    (folder / "broken.gguf").write_bytes(b"GGUF and nothing else")
    return folder


async def imported(store, **fields):
    return [event async for event in import_models(store, ImportRequest(**fields))]


async def test_the_plan_comes_first_and_a_dry_run_ends_with_it(store, files):
    (plan,) = await imported(store, paths=[str(files)], dry_run=True)
    assert isinstance(plan, Plan)
    assert [each.path.name for each in plan.skipped] == ["broken.gguf"]
    assert len(plan.found) == 1
    assert store.list() == []


async def test_a_model_is_made_and_its_file_stays(store, files):
    *_, last = await imported(store, paths=[str(files / "tiny.gguf")], name="mine")
    assert isinstance(last, Imported)
    assert last.name.shortest == "mine:latest"
    assert (files / "tiny.gguf").exists()
    assert [each.name.shortest for each in store.list()] == ["mine:latest"]


async def test_a_model_that_is_there_is_replaced_only_if_asked(store, files):
    path = [str(files / "tiny.gguf")]
    await imported(store, paths=path, name="mine")
    (plan,) = await imported(store, paths=path, name="mine")
    assert (plan.found, plan.skipped[0].reason) == ((), "there is a model mine:latest already")
    *_, last = await imported(store, paths=path, name="mine", replace=True)
    assert isinstance(last, Imported)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"paths": []}, InvalidCreateError),
        ({"paths": ["relative.gguf"]}, InvalidCreateError),
        ({"paths": ["/nowhere/at/all.gguf"]}, InvalidCreateError),
    ],
)
async def test_paths_are_absolute_and_exist(store, fields, error):
    with pytest.raises(error):
        await imported(store, **fields)


async def test_one_name_is_for_one_valid_model(store, files):
    (files / "second.gguf").write_bytes((MODELS / "embedder.gguf").read_bytes())
    with pytest.raises(InvalidCreateError, match="2 models"):
        await imported(store, paths=[str(files)], name="mine")
    with pytest.raises(InvalidModelNameError):
        await imported(store, paths=[str(files)], name="a b")


async def test_one_that_fails_stops_no_other(store, files, monkeypatch):
    (files / "second.gguf").write_bytes((MODELS / "embedder.gguf").read_bytes())
    get, calls = store.get, []

    def failing(name):
        calls.append(name)
        if len(calls) == 1:
            raise OSError("the disk is tired")
        return get(name)

    monkeypatch.setattr(store, "get", failing)
    events = await imported(store, paths=[str(files)])
    (failed,) = [each for each in events if isinstance(each, Failed)]
    assert failed.file.reason == "the disk is tired"
    assert len([each for each in events if isinstance(each, Imported)]) == 1


async def test_a_check_ends_with_its_report(store):
    *_, report = [step async for step in check_store(store, repair=False, quick=False)]
    assert isinstance(report, Report)
