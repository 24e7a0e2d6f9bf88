"""The real library, in the environment that `puna plugin install puna-ctransformers` makes, through hosts."""

import asyncio
import atexit
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import llama_cpp
import pytest
from tests.environments.conftest import Place

from puna.backend import Constraint, InvalidRequestError, ModelSpec, Sampling, SequenceRequest, UnsupportedError
from puna.errors import LoadFailedError
from puna.plugins import Registry
from puna.settings import Settings
from puna.testing import BackendContract, collect
from puna.testing.hosts import hosted

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "core/puna/demo/llamita.gguf"
SPEC = ModelSpec(path=str(DEMO), context_length=64)


@cache
def folder():
    """Install the plugin once, from the checkout, into a folder that is removed at the end."""
    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    Place(Path(made.name) / "plugins").plugin("install", "puna-ctransformers")
    return Path(made.name) / "plugins"


def ctransformers():
    """Return the installed backend."""
    return Registry.discover(Settings(plugins_folder=folder())).get("ctransformers")


class TestCTransformers(BackendContract):
    prompt = "<|user|>Why is the sky blue?<|assistant|>"

    @classmethod
    def plugin(cls):
        return ctransformers()

    def spec(self):
        return ModelSpec(path=str(DEMO), context_length=256)


def test_a_model_is_given_to_it(tmp_path):
    place = Place(folder())
    assert place.plugin("check", "ctransformers").startswith("puna-ctransformers 0.1.0 (backend ctransformers): ")
    with place.serving(tmp_path / "models") as server:
        body = {"model": "ours", "from": "llamita", "backend": "ctransformers", "stream": False}
        server.json("/api/create", body)
        asked = {"model": "ours", "prompt": "Why is the sky blue?", "stream": False, "options": {"temperature": 0}}
        assert "blue" in server.json("/api/generate", asked)["response"]


@asynccontextmanager
async def loaded(**values):
    async with hosted(ctransformers(), replace(SPEC, **values)) as model:
        yield model


@pytest.fixture
async def model():
    async with loaded() as model:
        yield model


@pytest.fixture(scope="module")
def reference():
    return llama_cpp.Llama(str(DEMO), vocab_only=True, verbose=False)


TEXTS = (
    "Why is the sky blue?",
    "<|user|>Hi<|assistant|>",
    "  two  spaces",
    "a\n\nb",
    "é🙂" * 200,
    "</s>",
    "a</s>b<s>",
    "",
)


async def test_texts_have_the_ids_that_llama_cpp_gives_them(model, reference):
    for text in TEXTS:
        for parse_special in (True, False):
            expected = reference.tokenize(text.encode(), add_bos=True, special=parse_special)
            assert await model.tokenize(text, add_special=True, parse_special=parse_special) == expected, text


async def test_a_zero_byte_does_not_end_a_text(model):
    tokens = await model.tokenize("a\0b", add_special=False, parse_special=False)
    pieces = b"".join(await model.detokenize(tokens, special=False))
    assert pieces.replace(b" ", b"") == b"a\0b"


async def test_special_tokens_have_text_only_when_asked_for(model):
    assert await model.detokenize([1, 2], special=False) == [b"", b""]
    assert await model.detokenize([1, 2], special=True) == [b"<s>", b"</s>"]


async def test_the_facts(model):
    facts = model.facts
    assert (facts.context_length, facts.parallel, facts.adds_bos, facts.bos_text) == (64, 1, True, "<s>")
    assert facts.size_bytes > DEMO.stat().st_size
    assert facts.embedding_length > 0


async def test_the_context_is_clamped_to_the_models_own():
    async with loaded(context_length=10**6) as model:
        assert 64 < model.facts.context_length < 10**6


async def test_a_sequence_longer_than_the_context_goes_on(model):
    prompt = tuple(await model.tokenize("a b c d e f g h " * 20, add_special=True, parse_special=False))[:60]
    for seed in range(3):
        request = SequenceRequest(prompt=prompt, max_tokens=80, sampling=Sampling(seed=seed, temperature=1.5))
        finish = (await collect(model, request)).finish
        assert finish.reason == ("length" if finish.output_tokens == 80 else "stop")


async def test_an_empty_prompt_generates_nothing(model):
    assert (await collect(model, SequenceRequest(prompt=()))).finish.output_tokens == 0


async def test_vectors_are_raw_when_asked_for(model):
    (unit,), (raw,) = await model.embed(["hello"]), await model.embed(["hello"], raw=True)
    factor = raw.values[0] / unit.values[0]
    assert factor != pytest.approx(1)
    assert list(raw.values) == pytest.approx([value * factor for value in unit.values])
    with pytest.raises(InvalidRequestError, match="nothing to embed"):
        await model.embed([()])


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"constraint": Constraint("gbnf", 'root ::= "a"')}, InvalidRequestError),
        ({"sampling": Sampling(logit_bias={1: 2.0})}, InvalidRequestError),
        ({"media": (b"image",)}, UnsupportedError),
    ],
)
async def test_what_the_library_cannot_do_is_refused(model, values, error):
    with pytest.raises(error):
        await collect(model, SequenceRequest(prompt="a", **values))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"path": str(ROOT / "README.md")}, "invalid file magic"),
        ({"path": str(ROOT / "tests/models/scripted.gguf")}, 'needs the tokenizer "llama"; this model has "gpt2"'),
        ({"adapter_paths": ("/a",)}, "takes no adapters"),
    ],
)
async def test_what_the_library_cannot_load_is_refused(values, text):
    with pytest.raises(LoadFailedError, match=text):
        async with loaded(**values):
            pass


async def test_a_model_that_the_library_refuses(tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(await asyncio.to_thread(DEMO.read_bytes))
    with cut.open("r+b") as file:
        content = file.read()
        file.seek(content.index(b"output_norm.weight"))
        file.write(b"another_nor")
    with pytest.raises(LoadFailedError, match="Failed to create LLM"):
        async with loaded(path=str(cut)):
            pass
