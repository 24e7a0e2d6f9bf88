"""KV caches on disk with a real model: what comes back is what would have been evaluated."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from puna.backend import ModelSpec
from puna_llama_cpp import LlamaCppBackend
from puna_llama_cpp.kv_store import cache as cache_module
from puna_llama_cpp.kv_store.cache import MIN_TOKENS

MODELS = Path(__file__).parents[3] / "models"
PROMPT = tuple(3 + (5 * index) % 200 for index in range(MIN_TOKENS + 100))
OTHER = tuple(4 + (7 * index) % 200 for index in range(MIN_TOKENS + 100))


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """The model is tiny, so that evaluating is faster than any disk; reading must seem to cost nothing."""
    monkeypatch.setattr(cache_module, "_ASSUMED_BYTES_PER_SECOND", 1e18)
    # A busy machine may need more than the time that a host has.
    monkeypatch.setattr(cache_module, "_CLOSE_SECONDS", 60.0)


@pytest.fixture
def files(tmp_path):
    return lambda: sorted((tmp_path / "cache").rglob("*.kv"))


@pytest.fixture
def open_model(tmp_path):
    """Load a model that keeps its cache in a folder; the caller closes it."""

    async def open_model(name="chatter", *, options=None, **spec):
        options = {"kv_cache_folder": str(tmp_path / "cache")} if options is None else options
        spec = {"path": str(MODELS / f"{name}.gguf"), "threads": 1, "parallel": 2, "backend_options": options, **spec}
        return await LlamaCppBackend().load(ModelSpec(**spec), lambda done: None)

    return open_model


@pytest.fixture
def answer(open_model, write):
    """Load a model, have it answer prompts, and unload it. Return the texts and the counts of cached tokens."""

    async def answer(*prompts, salt="", **model):
        opened = await open_model(**model)
        try:
            found = [await write(opened, prompt, cache_salt=salt) for prompt in prompts]
        finally:
            await opened.aclose()
        return ["".join(texts) for texts, _ in found], [end.cached_prompt_tokens for _, end in found]

    return answer


async def test_a_chat_goes_on_after_a_restart(answer):
    first, cached = await answer(PROMPT)
    assert cached == [0]
    again, cached = await answer((*PROMPT, 9, 10))
    assert cached == [len(PROMPT)]
    assert again == (await answer((*PROMPT, 9, 10), options={}))[0]
    assert (await answer(PROMPT)) == (first, [len(PROMPT) - 1])


async def test_a_prompt_with_the_same_beginning_is_served(answer):
    await answer(PROMPT)
    prompt = (*PROMPT[: MIN_TOKENS + 50], *OTHER)
    texts, cached = await answer(prompt)
    assert cached == [MIN_TOKENS + 50]
    assert texts == (await answer(prompt, options={}))[0]


async def test_without_a_folder_nothing_is_kept(answer, tmp_path):
    await answer(PROMPT, options={})
    assert (await answer(PROMPT, options={}))[1] == [0]
    assert list(tmp_path.iterdir()) == []


async def test_a_sequence_whose_slot_another_takes_comes_back(answer):
    texts, cached = await answer(PROMPT, OTHER, (*PROMPT, 9), parallel=1)
    assert cached == [0, 0, len(PROMPT)]
    assert texts[2] == (await answer((*PROMPT, 9), options={}))[0][0]


async def test_chats_that_take_turns_in_one_slot_get_their_own_states(answer):
    shapes = ((3, 300), (4, 200), (5, 250))
    prompts = [tuple(first + (5 * index) % 100 for index in range(length)) for first, length in shapes]
    (first, second, third), _ = await answer(*prompts, options={}, parallel=3)
    texts, cached = await answer(*prompts * 3, parallel=1)
    assert cached == [0, 0, 0, *[len(prompt) - 1 for prompt in prompts] * 2]
    assert texts == [first, second, third] * 3


async def test_memory_is_preferred_to_the_disk(answer, monkeypatch):
    await answer(PROMPT)
    reads = []
    monkeypatch.setattr(cache_module.DiskCache, "_read", lambda self, store, found, cached: reads.append(found))
    assert (await answer(PROMPT, PROMPT))[1] == [0, len(PROMPT) - 1]
    assert len(reads) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"name": "jinja"},
        {"adapter_paths": (str(MODELS / "chatter-lora.gguf"),)},
        {"kv_cache_type": "f32"},
        {"flash_attention": "off"},
        {"context_length": 512},
        {"batch_size": 64},
    ],
)
async def test_whatever_decides_the_bits_keeps_files_apart(answer, other, files):
    await answer(PROMPT)
    texts, cached = await answer(PROMPT, **other)
    assert cached == [0]
    assert texts == (await answer(PROMPT, options={}, **other))[0]
    assert len({path.parent for path in files()}) == 2


def test_threads_and_loading_count_too(parts):
    given = ({}, {"threads": 2}, {"use_mmap": True}, {"gpu_layers": 0})
    first, *others = [parts(**each).identity.settings for each in given]
    assert all(each != first for each in others)


async def test_salts_are_kept_apart(answer):
    await answer(PROMPT, salt="mine")
    assert (await answer(PROMPT, salt="yours"))[1] == [0]
    assert (await answer(PROMPT, salt="mine"))[1] == [len(PROMPT) - 1]


async def test_encrypted_files_serve_their_secret_only(answer, tmp_path):
    options = {"kv_cache_folder": str(tmp_path / "cache")}
    texts, _ = await answer(PROMPT, options={**options, "kv_cache_folder_secret": "one"})
    assert (await answer(PROMPT, options={**options, "kv_cache_folder_secret": "two"}))[1] == [0]
    assert (await answer(PROMPT))[1] == [0]
    assert await answer(PROMPT, options={**options, "kv_cache_folder_secret": "one"}) == (texts, [len(PROMPT) - 1])


async def test_a_damaged_file_is_dropped_and_the_prompt_evaluated(answer, files):
    texts, _ = await answer(PROMPT)
    (path,) = files()
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    assert await answer(PROMPT) == (texts, [0])
    assert files()[0].read_bytes() != bytes(data)
    assert await answer(PROMPT) == (texts, [len(PROMPT) - 1])


async def test_a_state_that_llama_cpp_does_not_accept_is_dropped(answer, monkeypatch, caplog):
    texts, _ = await answer(PROMPT)
    read = cache_module.SequenceStore.read
    monkeypatch.setattr(cache_module.SequenceStore, "read", lambda *each: read(*each)[:-8].copy())
    assert await answer(PROMPT) == (texts, [0])
    assert "does not accept its state" in caplog.text


async def test_a_recurrent_state_is_restored_as_a_whole(open_model, write, answer):
    model = await open_model("wanderer")
    await write(model, PROMPT, max_tokens=1)
    await model.aclose()
    longer = (*PROMPT, 9, 10)
    texts, cached = await answer(longer, name="wanderer")
    assert cached == [len(PROMPT)]
    assert texts == (await answer(longer, name="wanderer", options={}))[0]
    assert (await answer(PROMPT[:-1], name="wanderer"))[1] == [0]


async def test_what_runs_at_the_unloading_is_kept_too(open_model, write, answer):
    model = await open_model()
    # Shifts of the context keep the prompt, however long the answer has become.
    running = asyncio.create_task(write(model, PROMPT, max_tokens=10**9, keep_tokens=-1))
    while model.kv_cache_usage().active_tokens <= len(PROMPT):  # noqa: ASYNC110 (no event tells)
        await asyncio.sleep(0.001)
    await model.aclose()
    with pytest.raises(Exception, match="unloaded"):
        await running
    assert (await answer(PROMPT))[1] == [len(PROMPT) - 1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_nothing_is_kept_after_an_error_in_the_middle_of_a_step(open_model, write, files, monkeypatch):
    model = await open_model()
    await write(model, PROMPT)

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("puna_llama_cpp.generation.output_processor.OutputProcessor.advance", fail)
    with pytest.raises(Exception, match="unloaded"):
        await write(model, OTHER)
    await model.aclose()
    assert files() == []


async def test_an_idle_model_saves_in_advance(open_model, write, files, monkeypatch):
    monkeypatch.setattr("puna_llama_cpp.model.IDLE_SECONDS", 0.0)
    model = await open_model()
    await asyncio.gather(write(model, PROMPT), write(model, OTHER))
    while len(files()) < 2:  # noqa: ASYNC110 (a thread's)
        await asyncio.sleep(0.001)
    await model.aclose()
    assert len(files()) == 2


async def test_a_sequence_is_copied_into_memory_that_was_touched_before(open_model, write, monkeypatch):
    model = await open_model(parallel=1)
    await write(model, PROMPT)
    disk = model._disk
    while disk.writer._buffers.lacking:  # noqa: ASYNC110 (a thread's)
        await asyncio.sleep(0.001)
    given, copy = [], type(model._context).state
    monkeypatch.setattr(type(model._context), "state", lambda *each: given.append(each[2]) or copy(*each))
    await write(model, OTHER)
    await model.aclose()
    assert len(given[0]) == disk.writer._buffers.size


async def test_writing_that_makes_way_for_streams_does_not_delay_the_unloading(open_model, write, files, monkeypatch):
    monkeypatch.setattr("puna_llama_cpp.kv_store.writer._SHARE", 1e-9)
    model = await open_model(parallel=1)
    await write(model, PROMPT)
    await write(model, OTHER, max_tokens=1)
    model._disk.writer.busy = True
    await model.aclose()
    assert len(files()) == 2


async def test_a_prompt_waits_until_its_sequence_is_written(open_model, write, monkeypatch):
    model = await open_model(parallel=1)
    go, put = threading.Event(), cache_module.SequenceStore.write
    monkeypatch.setattr(cache_module.SequenceStore, "write", lambda *each: go.wait() and put(*each))
    await write(model, PROMPT)
    await write(model, OTHER)  # evicts the first
    again = asyncio.create_task(write(model, (*PROMPT, 9)))
    while not model._disk.writer._hurried:  # noqa: ASYNC110 (a thread's)
        await asyncio.sleep(0.001)
    go.set()
    assert (await again)[1].cached_prompt_tokens == len(PROMPT)
    await model.aclose()


async def test_a_state_that_is_too_large_is_copied_only_without_streams(open_model, write, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_BYTES", 1)
    model = await open_model(parallel=1)
    await write(model, PROMPT)
    (content,) = model._engine._slots.contents()
    model._disk.writer.busy = True
    assert not model._disk.save(content)
    model._disk.writer.busy = False
    assert model._disk.save(content)
    await model.aclose()


async def test_a_short_prompt_is_not_kept(answer, files):
    await answer(PROMPT[: MIN_TOKENS - 60])
    assert files() == []


async def test_prompts_that_arrive_together_share_one_reading(open_model, write, answer, monkeypatch):
    await answer(PROMPT)
    reads = []
    read = cache_module.SequenceStore.read
    monkeypatch.setattr(cache_module.SequenceStore, "read", lambda *each: reads.append(each) or read(*each))
    model = await open_model()
    found = await asyncio.gather(*(write(model, (*PROMPT, end)) for end in (5, 6)))
    await model.aclose()
    assert [end.cached_prompt_tokens for _, end in found] == [len(PROMPT)] * 2
    assert len(reads) == 1


async def test_a_file_is_not_read_where_evaluating_is_faster(answer, monkeypatch):
    await answer(PROMPT)
    monkeypatch.setattr(cache_module, "_ASSUMED_BYTES_PER_SECOND", 1.0)
    assert (await answer(PROMPT))[1] == [0]


async def test_a_folder_that_cannot_be_used_costs_only_the_cache(answer, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    assert (await answer(PROMPT))[1] == [0]
    assert "not kept on disk" in caplog.text


async def test_a_process_that_is_killed_keeps_what_was_saved(answer, tmp_path, files):
    program = f"""
import asyncio
from puna.backend import ModelSpec, Sampling, SequenceRequest
from puna_llama_cpp import LlamaCppBackend
async def main():
    spec = ModelSpec(path={str(MODELS / "chatter.gguf")!r}, threads=1, parallel=2,
                     backend_options={{"kv_cache_folder": {str(tmp_path / "cache")!r}}})
    loaded = await LlamaCppBackend().load(spec, lambda done: None)
    from puna_llama_cpp import model
    model.IDLE_SECONDS = 0.0
    request = SequenceRequest(prompt={PROMPT!r}, sampling=Sampling(temperature=0), max_tokens=40)
    async for event in loaded.generate(request):
        pass
    print("done", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:  # noqa: ASYNC220
        assert process.stdout.readline() == b"done\n"
        while not files():  # noqa: ASYNC110 (another process's)
            await asyncio.sleep(0.01)
        process.kill()
    assert (await answer(PROMPT))[1] == [len(PROMPT) - 1]
