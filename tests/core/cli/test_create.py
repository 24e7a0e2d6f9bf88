import argparse
import json

import pytest
from tests.core.cli.serving import address, backend, batches, client, registry, serving, settings, shared, stocked
from tests.core.serving.conftest import MODELS

from puna.cli import create
from puna.cli.errors import CommandError
from puna.cli.parsers import parser
from puna.model_name import ModelName
from puna_client.v1 import models_pb2

__all__ = ["address", "backend", "batches", "client", "registry", "serving", "settings", "shared", "stocked"]


def asking(*words):
    return parser().parse_args(["create", "made", *map(str, words)])


def read(path):
    request, sources, options, capabilities = models_pb2.CreateModelRequest(), create.Sources(), {}, []
    create.read_modelfile(path, request, sources, options, capabilities)
    return request, sources, options, capabilities


async def made(client, stocked, *words):
    await create.create(client, asking(*words))
    return stocked.get(ModelName.parse("made"))


async def test_a_backend_of_gguf_takes_a_file_like_any_other(client, stocked):
    model = await made(client, stocked, "--backend", "played", "--file", MODELS / "scripted.gguf", "--option", "a=3")
    assert (model.config.backend, model.config.is_gguf, model.config.backend_options) == ("played", True, {"a": 3})


async def test_a_folder_of_gguf_files_needs_no_backend(client, stocked, tmp_path):
    (tmp_path / "m.gguf").write_bytes((MODELS / "scripted.gguf").read_bytes())
    (tmp_path / "README.md").write_text("no model")
    assert (await made(client, stocked, "--folder", tmp_path)).config.is_gguf


async def test_with_a_backend_file_may_still_name_a_modelfile(client, stocked, tmp_path):
    (tmp_path / "Modelfile").write_text(f"# mine\nFROM {MODELS / 'scripted.gguf'}\nBACKEND_OPTION a 2\nSYSTEM Hi.\n")
    model = await made(client, stocked, "--backend", "played", "-f", tmp_path / "Modelfile", "--option", "a=5")
    assert (model.system, model.config.backend_options) == ("Hi.", {"a": 5})


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--backend", "nosuch", "--from", "plain"], "backend 'nosuch' is not installed (installed: played)"),
        (["--folder", "/nowhere/at/all"], "/nowhere/at/all: no such directory"),
        (["--backend", "played", "--file", __file__], "test_create.py is no GGUF file"),
        (["--format", "onnx", "--file", "/dev/null"], "/dev/null: no such file or directory"),
    ],
)
async def test_what_is_wrong_is_known_before_the_upload(client, capsys, words, text):
    with pytest.raises(CommandError) as caught:
        await create.create(client, asking(*words))
    assert text in str(caught.value)
    assert "hashing" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["level", "=3", ""])
async def test_options_have_a_name_and_a_value(client, text):
    with pytest.raises(CommandError, match="NAME=VALUE"):
        await create.create(client, asking("--from", "plain", "--option", text))


def test_only_one_source_can_be_named(capsys):
    with pytest.raises(SystemExit):
        asking("--folder", "x", "--upstream", "y")
    assert "not allowed with" in capsys.readouterr().err


def test_lines_about_backends(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "Modelfile").write_text(
        "FROM ./folder\nBACKEND shelf\nBACKEND_FORMAT crate\nBACKEND_OPTION a.b-c 3\nBACKEND_OPTION d e = f\n"
        "CAPABILITY completion\nCAPABILITY tools\nPARAMETER top_k 3\n"
    )
    request, sources, options, capabilities = read(tmp_path / "Modelfile")
    assert (request.backend, request.format, sources.paths) == ("shelf", "crate", [tmp_path / "folder"])
    assert (options, capabilities) == ({"a.b-c": "3", "d": "e = f"}, ["completion", "tools"])
    assert json.loads(request.parameters_json) == {"top_k": 3}
    (tmp_path / "Modelfile").write_text("UPSTREAM gpt:latest\nBACKEND away\n")
    request, sources, *_ = read(tmp_path / "Modelfile")
    assert (request.upstream, request.from_model, sources.paths) == ("gpt:latest", "", [])


@pytest.mark.parametrize(
    ("format_", "formats", "names", "opaque"),
    [
        ("", None, ["a.bin"], False),
        ("crate", None, ["a.bin"], True),
        ("gguf", ["crate"], ["a.bin"], False),
        ("", ["gguf"], ["a.bin"], False),
        ("", ["crate"], ["a.gguf"], True),
        ("", [], [], True),
        ("", ["gguf", "crate"], ["a.bin"], True),
        ("", ["gguf", "crate"], ["a.bin", "b.gguf"], False),
    ],
)
def test_whether_files_are_kept_as_they_are(tmp_path, format_, formats, names, opaque):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert create._are_opaque(format_, formats, [tmp_path]) is opaque


def test_two_sources_with_one_name(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same").write_text("x")
    with pytest.raises(CommandError, match="two files have the name same"):
        create._named_files(create.Sources([tmp_path / "a", tmp_path / "b"]), as_they_are=True)


def test_the_type_of_the_arguments():
    assert isinstance(asking("--option", "a=b", "--option", "c=d", "--capability", "tools"), argparse.Namespace)
    assert asking("--option", "a=b", "--option", "c=d").option == ["a=b", "c=d"]
