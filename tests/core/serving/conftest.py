import hashlib
import sys
from pathlib import Path

import pytest
from tests.core.inprocess import loading

from puna.gguf import reader as gguf
from puna.gguf import writer as gguf_write
from puna.models.create.create import create
from puna.models.create.request import CreateRequest
from puna.models.store import ModelStore
from puna.plugins import Plugin, Registry, read
from puna.runtime.pool import ModelPool
from puna.sandbox.sandbox import Sandbox
from puna.serving.core import Serving
from puna.settings import Settings

PLUGIN = Path(__file__).parent / "plugin"
MODELS = Path(__file__).parents[2] / "models"
PLAIN = "{{ .Prompt }}"
CHAT = "{{- range .Messages }}[{{ .Role }}]{{ .Content }}{{ end }}"
TOOLS = (
    "{{- if .Tools }}[tools]{{ range .Tools }}{{ .Function.Name }}{{ end }}{{ end }}"
    "{{- range .Messages }}[{{ .Role }}]{{ .Content }}"
    "{{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}</tool_call>{{ end }}{{ end }}"
)
THINK = (
    "{{- range .Messages }}[{{ .Role }}]"
    "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}{{ end }}"
)
BOTH = (
    "{{- if .Tools }}[tools]{{ end }}{{- range .Messages }}[{{ .Role }}]"
    "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}"
    "{{ if .ToolCalls }}<tool_call>{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}</tool_call>{{ end }}{{ end }}"
)
HARMONY = (
    "{{- range .Messages }}<|start|>{{ .Role }}{{ if .Thinking }}<|channel|>analysis<|message|>{{ .Thinking }}"
    "{{ else }}<|message|>{{ .Content }}<|end|>{{ end }}{{ end }}"
)
FILL = "{{ if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}"


def make(store, name, **fields):
    """Make a model; the steps must not fail."""
    return [step.status for step in create(store, CreateRequest(name=name, **fields))]


def upload(store, path):
    """Store a file; return its digest."""
    blob = store.blobs.add(path.read_bytes())
    assert blob.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return blob.digest


@pytest.fixture(scope="session")
def stocked(tmp_path_factory):
    """A store with models of every kind; not to be changed."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    scripted = {"a.gguf": upload(store, MODELS / "scripted.gguf")}
    make(store, "plain", files=scripted, template=PLAIN)
    make(store, "bare", files=scripted)
    make(store, "talker", base="plain", template=CHAT)
    make(store, "tools", base="plain", template=TOOLS)
    make(store, "thinker", base="plain", template=THINK)
    make(store, "both", base="plain", template=BOTH)
    make(store, "fill", base="plain", template=FILL)
    make(
        store,
        "full",
        base="talker",
        system="Be brief.",
        parameters={"num_predict": 3, "stop": ["END"], "temperature": 0.5},
    )
    make(store, "native", files={"b.gguf": upload(store, MODELS / "jinja-tools.gguf")})
    variants = tmp_path_factory.mktemp("variants") / "variants.gguf"
    tool_use = gguf.read(MODELS / "jinja-tools.gguf").text("tokenizer.chat_template")
    with variants.open("wb") as file:
        part = gguf_write.Part(MODELS / "jinja.gguf", gguf.read(MODELS / "jinja.gguf", arrays=True))
        gguf_write.with_text(part, "tokenizer.chat_template.tool_use", tool_use, file)
    make(store, "variants", files={"v.gguf": upload(store, variants)})
    make(store, "coder", base="plain", renderer="qwen3-coder", parser="qwen3-coder")
    make(store, "reasoner", base="plain", renderer="qwen3.5", parser="qwen3.5")
    for parser in ("harmony", "gemma4", "functiongemma", "olmo3", "glimmer"):
        make(store, parser, base="talker", parser=parser)
    make(store, "thinking-harmony", base="plain", template=HARMONY, parser="harmony")
    # Its only way to begin a call is a token of its own.
    marked = tmp_path_factory.mktemp("marked") / "marked.gguf"
    marked.write_bytes((MODELS / "scripted.gguf").read_bytes().replace(b"<|im_start|>", b"<|tool_call>"))
    make(store, "marked", files={"m.gguf": upload(store, marked)}, template=CHAT, parser="gemma4")
    make(store, "unrenderable", base="plain", renderer="nosuch", parser="nosuch")
    make(store, "embedder", files={"c.gguf": upload(store, MODELS / "embedder.gguf")})
    return store


@pytest.fixture
def registry():
    manifest = read(PLUGIN / "puna_played.backend.toml", python_class="puna_played:PlayedBackend")
    return Registry(lambda: [Plugin(name="played", manifest=manifest)])


@pytest.fixture
def backend(monkeypatch):
    """The backend that runs all models of the test, in the test's process."""
    monkeypatch.syspath_prepend(PLUGIN)
    from puna_played import PlayedBackend

    yield PlayedBackend()
    sys.modules.pop("puna_played", None)


@pytest.fixture
def settings():
    return Settings()


@pytest.fixture
async def serving(stocked, registry, backend, settings, tmp_path):
    async with (
        ModelPool(registry, settings, socket_dir=tmp_path, load=loading(backend)) as pool,
        Sandbox(settings.limits) as sandbox,
    ):
        yield Serving(stocked, pool, settings, registry, sandbox)
