import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from puna.backend import InvalidRequestError, ModelSpec
from puna_llama_cpp import LlamaCppBackend

MODELS = Path(__file__).parents[2] / "models"


def test_the_class_can_be_read_without_loading_llama_cpp():
    code = "import sys, puna_llama_cpp; print(sorted({'llama_cpp', 'numpy', 'llguidance'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


async def test_what_is_no_model_is_refused_with_llama_cpps_words(tmp_path):
    (tmp_path / "no.gguf").write_text("hello, I am a text")
    with pytest.raises(InvalidRequestError, match=r"failed to load model from .*no\.gguf"):
        await LlamaCppBackend().load(ModelSpec(path=str(tmp_path / "no.gguf")), lambda done: None)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"kv_cache_type": "q3_x"}, "q3_x"),
        ({"flash_attention": "maybe"}, "maybe"),
        ({"adapter_paths": ("/no",)}, "/no"),
    ],
)
async def test_unknown_options_are_refused(load, spec, named):
    with pytest.raises(InvalidRequestError, match=named):
        await load("chatter", **spec)


@pytest.mark.parametrize(
    "spec",
    [{"kv_cache_type": "q8_0"}, {"flash_attention": "off"}, {"use_mmap": True}, {"use_mmap": False}, {"gpu_layers": 0}],
)
async def test_options_change_how_but_not_what(load, write, spec):
    model = await load("scripted", context_length=256, **spec)
    assert (await write(model, "a"))[0] == ["Hello", ",", " world", "!"]


async def test_a_smaller_cache_takes_less_memory(load):
    plain = (await load("scripted", context_length=1024)).facts
    small = (await load("scripted", context_length=1024, kv_cache_type="q8_0")).facts
    assert small.size_bytes + small.shared_bytes < plain.size_bytes


async def test_weights_that_do_not_fit_into_free_memory_stay_in_their_file(load, tmp_path):
    def mapped(path):
        return str(path) in Path("/proc/self/maps").read_text()

    # Weights that are in memory already are shared, so the two loads have files of their own.
    for memory_bytes, in_file in ((2**40, False), (1000, True)):
        path = tmp_path / f"{memory_bytes}.gguf"
        shutil.copy(MODELS / "chatter.gguf", path)
        await load(path=str(path), memory_bytes=memory_bytes)
        assert mapped(path) == in_file


async def test_loading_tells_how_far_it_is():
    told = []
    model = await LlamaCppBackend().load(ModelSpec(path=str(MODELS / "chatter.gguf"), threads=1), told.append)
    await model.aclose()
    assert told == sorted(told)
    assert told[-1] == 1.0


async def test_loading_can_be_cancelled():
    """By the first word of its progress, so that there is something left to cancel."""
    loading = asyncio.ensure_future(
        LlamaCppBackend().load(ModelSpec(path=str(MODELS / "chatter.gguf"), threads=1), lambda done: loading.cancel())
    )
    with pytest.raises(asyncio.CancelledError):
        await loading
