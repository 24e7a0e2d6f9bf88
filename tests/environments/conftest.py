"""Plugins in environments of their own, made with packages from the index: `make test-plugins` runs this folder."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.e2e.server import MODELS, PUNA, serving

collect_ignore_glob = [] if os.environ.get("PUNA_ENVIRONMENTS") else ["test_*.py"]

MODULE = '''"""Answers each prompt with the versions of what it runs on."""

from importlib.metadata import version

from puna.backend import Backend, Finish, LoadedModel, ModelFacts, TextDelta


class Model(LoadedModel):
    facts = ModelFacts(context_length=4096)

    async def generate(self, request, /):
        from {module} import late

        yield TextDelta(late.answer())
        yield Finish(reason="stop", prompt_tokens=1, output_tokens=1)

    async def tokenize(self, text, /, *, add_special, parse_special):
        return list(text.encode())

    async def detokenize(self, tokens, /, *, special):
        return [bytes([token]) for token in tokens]


class Answering(Backend):
    async def load(self, spec, report, /):
        return Model()
'''
LATE = '''"""Imported when the first sequence runs, as libraries import parts of themselves."""

from importlib.metadata import version


def answer():
    return {text!r} + " " + " ".join(f"{{name}}={{version(name)}}" for name in {shown!r})
'''
PROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "puna-{name}"
version = "{version}"
requires-python = ">=3.11"
dependencies = {dependencies}

[project.entry-points."puna.backends"]
{name} = "puna_{name}:Answering"

[tool.hatch.build.targets.wheel]
packages = ["puna_{name}"]
"""
MANIFEST = 'contract = 1\nname = "{name}"\nformats = ["gguf"]\n'


def write_plugin(folder, name, *requirements, text="hello", version="1.0", shown=(), manifest=MANIFEST, module=MODULE):
    """Write a distribution whose model answers with `text` and the versions of the distributions in `shown`."""
    package = folder / f"puna_{name}"
    package.mkdir(parents=True, exist_ok=True)
    dependencies = json.dumps(["puna>=0.1", *requirements])
    (folder / "pyproject.toml").write_text(PROJECT.format(name=name, version=version, dependencies=dependencies))
    (package / "__init__.py").write_text(module.replace("{module}", package.name))
    (package / "late.py").write_text(LATE.format(text=text, shown=list(shown)))
    (package / "backend.toml").write_text(manifest.format(name=name))
    return folder


@dataclass
class Place:
    """A user's plugins folder, and the command line that uses it."""

    folder: Path
    program: Path = PUNA
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self):
        """Variables for the command line and for servers."""
        return {"PUNA_PLUGINS_FOLDER": str(self.folder)} | self.variables

    def start(self, *arguments, **variables):
        """Start `puna plugin` and return the process."""
        return subprocess.Popen(
            [self.program, "plugin", *map(str, arguments)],
            env=os.environ | self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder.parent,
        )

    def plugin(self, *arguments, status=0, **variables):
        """Run `puna plugin`; return its standard output, or its standard error if it must fail."""
        with self.start(*arguments, **variables) as process:
            out, err = process.communicate(timeout=300)
        assert process.returncode == status, out + err
        return err if status else out

    def listed(self):
        """Return the rows of `puna plugin list --json` by the backend's name."""
        return {each["name"]: each for each in json.loads(self.plugin("list", "--json"))}

    def serving(self, store):
        """Run a server that uses the folder."""
        return serving(store, self.program, **self.environment)

    def leftovers(self):
        """Return the names of the environments that no plugin has."""
        used = {path.readlink().name for path in self.folder.iterdir() if path.is_symlink()}
        return {path.name for path in (self.folder / ".environments").iterdir()} - used


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "plugins")


def create(server, name, backend, file="scripted"):
    """Make a model that a backend serves, of a GGUF file that the backend need not read."""
    done = subprocess.run(
        [PUNA, "create", name, "--gguf", MODELS / f"{file}.gguf", "--backend", backend],
        env=os.environ | {"PUNA_GRPC_HOST": server.grpc},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def answer(server, name):
    """Return the text of a model's answer, or of the error."""
    status, _, text = server.ask(
        "/api/generate", {"model": name, "prompt": "Hi", "stream": False, "think": False, "options": {"num_predict": 4}}
    )
    body = json.loads(text)
    return body["response"] if status == 200 else body["error"]
