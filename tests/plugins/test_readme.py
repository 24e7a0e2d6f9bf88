"""What plugins/README.md shows does what it says."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.server import serving, wait_until

from puna.cli.parsers import parser
from puna.plugins.manifest import CONSTRAINTS, SAMPLING, Capabilities, Check, Host, Manifest, read
from puna.settings import from_environment

README = (Path(__file__).parents[2] / "plugins" / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
HEADER = 'contract = 1\nname = "echo"\nformats = ["echo"]\n'


def block(language, part):
    (text,) = (text for kind, text in BLOCKS if kind == language and part in text)
    return text


def rows(after):
    """Return the cells of the first table behind a text."""
    table = re.search(r"\n\|---.*?\n((?:\|.*\n)+)", README[README.index(after) :])
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table[1].splitlines()]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A server with a plugins folder that is empty at first."""
    home = tmp_path_factory.mktemp("home")
    folder = home / ".local/share/puna/plugins"
    folder.mkdir(parents=True)
    with serving(home / "models", PUNA_PLUGINS_FOLDER=str(folder)) as server:
        yield server, home, folder


def shell(script, server, home, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"HOME": str(home), "PATH": path, "PUNA_GRPC_HOST": server.grpc, "PUNA_PLUGINS_FOLDER": str(folder)}
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=home,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_example_is_a_working_backend(running):
    code, manifest = block("python", "class Echo("), block("toml", 'puna_echo:EchoBackend"\n\n[cap')
    assert len(code.strip().splitlines()) <= 20
    _, home, _ = running
    (home / "puna_echo.py").write_text(code)
    (home / "backend.toml").write_text(manifest)
    output = shell(block("sh", "puna run parrot"), *running)
    assert re.search(r"^echo .*echo", output, re.MULTILINE)
    assert "hello there" in output


def test_the_chat_example_answers_conversations(running):
    server, _, folder = running
    (folder / "clerk").mkdir()
    (folder / "clerk/puna_clerk.py").write_text(block("python", "class Clerk("))
    (folder / "clerk/backend.toml").write_text(block("toml", "puna_clerk:ClerkBackend"))
    wait_until(lambda: "clerk/front:latest" in [each["name"] for each in server.json("/api/tags")["models"]])
    output = shell(block("sh", "--backend clerk"), *running)
    assert "At the back desk you said: Is anybody there?" in output
    assert "At the front desk you said: And here?" in output
    body = {"model": "helper", "messages": [{"role": "user", "content": "Hi"}], "stream": False, "think": True}
    message = server.json("/api/chat", body)["message"]
    assert (message["content"], message["thinking"]) == ("At the back desk you said: Hi", "A user asks.")


def test_a_plugin_is_installed_and_removed(running, tmp_path):
    server, _, _ = running
    (tmp_path / "plugins").mkdir()
    output = shell(block("sh", "puna plugin install"), server, tmp_path, tmp_path / "plugins")
    assert re.search(r"^echo ", output, re.MULTILINE)
    assert "puna-echo is removed" in output


def test_the_contract_tests_of_the_example_run(tmp_path):
    """The echo fails some, as the page says, and passes the others."""
    (tmp_path / "puna_echo.py").write_text(block("python", "class Echo("))
    (tmp_path / "puna_echo.backend.toml").write_text(block("toml", 'puna_echo:EchoBackend"\n\n[cap'))
    (tmp_path / "test_echo.py").write_text(block("python", "BackendContract"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    failed = set(re.findall(r"FAILED \S+::(\w+)", done.stdout))
    assert {"test_a_limit_is_kept", "test_stop_strings_end_the_text_and_are_not_in_it"} <= failed, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 2 * len(failed)


def test_the_table_lists_every_field_of_the_manifest():
    listed = {cells[0].strip("`") for cells in rows("| field | default |")}
    own = {each.name for each in dataclasses.fields(Manifest)} - {"path", "required_options"}
    host = {"host.class" if each.name == "python_class" else f"host.{each.name}" for each in dataclasses.fields(Host)}
    capabilities = {f"capabilities.{each.name}" for each in dataclasses.fields(Capabilities)}
    check = {f"check.{each.name}" for each in dataclasses.fields(Check)}
    assert listed == own - {"host", "capabilities", "check"} | host | capabilities | check


@pytest.mark.parametrize(("name", "values"), [("constraints", CONSTRAINTS), ("sampling", SAMPLING)])
def test_the_table_lists_every_value(name, values):
    (meaning,) = (cells[2] for cells in rows("| field | default |") if cells[0] == f"`capabilities.{name}`")
    assert tuple(re.findall(r"`(\w+)`", meaning)) == tuple(values)


def test_the_table_states_the_defaults(tmp_path):
    (tmp_path / "backend.toml").write_text(f'{HEADER}[host]\nclass = "a:B"\n')
    manifest = read(tmp_path / "backend.toml")
    for field, default, _ in rows("| field | default |"):
        if default not in ("required", "", "the entry point's value"):
            value = manifest
            for part in field.strip("`").split("."):
                value = getattr(value, part)
            expected = json.loads(default.strip("`"))
            assert (list(value) if isinstance(value, tuple) else value) == expected, field


def test_the_options_are_those_of_a_manifest(tmp_path):
    (tmp_path / "backend.toml").write_text(f'{HEADER}[host]\nclass = "a:B"\n{block("toml", "x-scope")}')
    options = read(tmp_path / "backend.toml").options
    assert (options["threads"].scope, options["library"].scope) == ("request", "operator")
    assert {cells[0].split("`")[1] for cells in rows("| scope |")} == {"operator", "model", "request"}


def test_the_secrets_are_those_of_a_configuration(tmp_path):
    (tmp_path / "puna.toml").write_text(block("toml", "[secrets]"))
    assert from_environment({}, tmp_path / "puna.toml").secrets.keys() == {"openai", "vllm", "test"}


def test_every_command_exists():
    commands = [shlex.split(line) for _, text in BLOCKS for line in text.splitlines() if line.startswith("puna ")]
    assert len(commands) > 6
    for _, *arguments in commands:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            try:
                parser().parse_args(arguments)
            except SystemExit:
                pytest.fail(f"puna {' '.join(arguments)}: {errors.getvalue()}")
