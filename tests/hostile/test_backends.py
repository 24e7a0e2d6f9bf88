"""Plugins that crash, exit, hang or lie when they are imported or described harm no other model."""

import json
import os
import subprocess
import time

import grpc
import pytest
from tests.core.plugins.site import CODE, Site, toml
from tests.e2e.server import MODELS, PUNA, serving
from tests.hostile.bounds import unharmed

from puna_client.v1 import server_pb2, server_pb2_grpc

ECHO = """
from puna.backend import Backend, Finish, LoadedModel, ModelFacts, TextDelta

class Model(LoadedModel):
    facts = ModelFacts(context_length=64)

    async def generate(self, request, /):
        yield TextDelta("made here")
        yield Finish(reason="stop", prompt_tokens=1, output_tokens=1)

    async def tokenize(self, text, /, *, add_special, parse_special):
        return list(text.encode())

    async def detokenize(self, tokens, /, *, special):
        return [bytes([token]) for token in tokens]

class Made(Backend):
    async def load(self, spec, report, /):
        return Model()
"""
AT_IMPORT = {
    "segv": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "abort": "import os; os.abort()",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "exits": "import os; os._exit(7)",
    "sysexit": "import sys; sys.exit(7)",
    "interrupt": "raise KeyboardInterrupt",
    "raises": "raise RuntimeError('no luck')",
    "missing": "import no_such_engine",
    "syntax": "def",
    "binary": "\0\0\0",
    "no_class": "x = 1",
    "wrong_class": "class Made: pass",
    "abstract": "from puna.backend import Backend\nclass Made(Backend): pass",
    "init": CODE + "    def __init__(self): raise ValueError('not today')",
    "memory": "x = [0] * (1 << 60)",
    "deep": "def f(): f()\nf()",
    "hangs": "import time; time.sleep(3600)",
    "spins": "while True: pass",
}
"""Bodies of modules by the names of their backends. The last two end only when the load is given up."""
PRINTS = {
    "prints": "print('puna.backend.v1 ready'); print('x' * 100000); import sys; sys.stderr.write('y' * 100000)\n"
    + ECHO,
    "closes": "import os; os.close(1); os.close(2); os.open(os.devnull, os.O_WRONLY); os.dup(1)\n" + ECHO,
}
"""Modules that are rude and work."""
MANIFESTS = {
    "formats_none": 'contract = 1\nname = "formats_none"\nformats = "gguf"\n',
    "preference_high": toml("preference_high", preference="high"),
    "unknown_key": toml("unknown_key", colour="red"),
    "another_name": toml("llama_cpp"),
    "future": toml("future", contract=99),
    "no_toml": b"\x7fELF\x00\xff",
    "huge": b"#" * (1 << 20),
    "nested": b"a = " + b"[" * 30000,
    "none": "",
    "reference": toml("reference") + 'options.properties.a."$ref" = "http://127.0.0.1:1/schema"\n',
    "unbounded": toml("unbounded") + 'options.properties.a = {type = "string", x-scope = "request"}\n',
    "escape": toml("escape", description="\x1b]0;owned\x07"),
    "no_program": toml("no_program") + 'host.command = ["./nothing"]\n',
    "lacking": toml("lacking", requires=["no_such_engine"], install="pip install engine"),
}
SERVED = {"formats": ["gguf"], "preference": -50}
"""Fields of backends to which the scripted model can be given."""
LOAD_SECONDS = 12
"""The timeout of a load here."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home):
    """The variables with which all of these plugins are installed."""
    site, shelf = Site(home / "site"), Site(home / "shelf")
    for name, code in (AT_IMPORT | PRINTS).items():
        site.module(name, toml(name, **SERVED), code=code)
    for name, manifest in MANIFESTS.items():
        site.module(name, manifest)
    site.write("puna_usurper.py", CODE)
    site.write("puna_usurper.backend.toml", toml("llama_cpp", preference=10000, formats=["gguf"]))
    site.announce("llama_cpp", "puna_usurper:Made", distribution="aaa-first")
    for name in ("twice_a", "twice_b"):
        site.module(name, toml("twice"))
        site.write(f"puna_{name}-1.0.dist-info/entry_points.txt", f"[puna.backends]\ntwice = puna_{name}:Made\n")
    site.write("bad-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    site.write("bad-1.0.dist-info/entry_points.txt", "[puna.backends]\nno equals sign\n")
    shelf.write(
        "loose/backend.toml", toml("loose", **SERVED) + 'host.command = ["sh", "-c", "echo nothing; sleep 60"]\n'
    )
    for name, content in ((b"strange\xff\n", "no toml"), (b"odd\xff\n", toml("odd") + 'host.command = ["true"]')):
        shelf.write(f"{os.fsdecode(name)}/backend.toml", content)
    shelf.write("dies/backend.toml", toml("dies", **SERVED) + 'host.command = ["false"]\n')
    shelf.write("text/backend.toml", toml("text", **SERVED) + 'host.command = ["./text"]\n')
    shelf.write("text/text", b"\x7fELF no program").chmod(0o755)
    return {
        "PYTHONPATH": os.pathsep.join([str(site.folder), os.environ.get("PYTHONPATH", "")]),
        "PUNA_PLUGINS_FOLDER": str(shelf.folder),
    }


@pytest.fixture(scope="module")
def server(home, environment):
    with serving(home / "models", tracebacks=True, OLLAMA_LOAD_TIMEOUT=f"{LOAD_SECONDS}s", **environment) as running:
        running.upload("scripted", MODELS / "scripted.gguf")
        yield running


@pytest.fixture(scope="module")
def listed(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = server_pb2_grpc.ServerServiceStub(channel)
        found = {}
        for each in stub.GetServerInfo(server_pb2.GetServerInfoRequest()).backends:
            found.setdefault(each.name, []).append(each)
        return found


def ask(server, model):
    """Return the status and the text or error of a request to a model, which a working one answers."""
    body = {"model": model, "prompt": "a", "raw": True, "stream": False, "options": {"num_predict": 1}}
    status, _, answer = server.ask("/api/generate", body)
    return status, json.loads(answer)


def made(server, backend):
    """Make a model that names a backend; return its name."""
    server.make_for(f"for-{backend}", backend)
    return f"for-{backend}"


@pytest.mark.parametrize("name", AT_IMPORT)
def test_a_module_that_fails_at_import_costs_its_own_request(server, listed, name):
    assert [each.error for each in listed[name]] == [""]
    model = made(server, name)
    with unharmed(server):
        began = time.monotonic()
        status, answer = ask(server, model)
        assert status == 500, answer
        assert answer["error"]
        assert time.monotonic() - began < LOAD_SECONDS + 20
        assert ask(server, "scripted")[0] == 200
    assert server.process.poll() is None


@pytest.mark.parametrize("name", PRINTS)
def test_a_module_that_is_rude_at_import_is_served_all_the_same(server, name):
    status, answer = ask(server, made(server, name))
    assert (status, answer.get("response")) == (200, "made here"), answer


@pytest.mark.parametrize("name", [*MANIFESTS, "twice", "bad-1", "strange"])
def test_a_bad_manifest_is_listed_with_its_fault(listed, name):
    found = [each for key, all_ in listed.items() if key.startswith(name) for each in all_]
    assert len(found) == (2 if name == "twice" else 1)
    for each in found:
        assert each.error
        assert each.error.isprintable()
        assert len(each.error) < 2000
        assert list(each.formats) == []


def test_a_stranger_does_not_take_over_our_name(server, listed):
    ours, stranger = sorted(listed["llama_cpp"], key=lambda each: each.error)
    assert (ours.distribution, ours.error) == ("puna", "")
    assert (stranger.distribution, stranger.error) == ("aaa-first", "the name belongs to a backend of Puna")
    assert ask(server, "scripted")[0] == 200


@pytest.mark.parametrize("name", ["dies", "text", "loose"])
def test_a_program_that_is_no_host_costs_its_own_request(server, name):
    model = made(server, name)
    with unharmed(server):
        status, answer = ask(server, model)
        assert status == 500, answer
        assert ask(server, "scripted")[0] == 200


def test_the_command_line_lists_them_all(environment, home):
    done = subprocess.run(
        [PUNA, "plugins"],
        env=os.environ | environment | {"OLLAMA_MODELS": str(home / "models")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = done.stdout.splitlines()
    for name in (*AT_IMPORT, *PRINTS, *MANIFESTS, "twice", "llama_cpp", "loose"):
        assert any(line.split()[0] == name for line in lines), name
    assert "\x1b" not in done.stdout
    assert "Traceback" not in done.stderr
