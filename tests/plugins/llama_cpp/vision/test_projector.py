"""Images through projectors of random weights: an answer shows which image was encoded, and nothing more.

`images.json` holds Ollama's answers on one thread, where the most probable token was clearly so.
"""

import asyncio
import json
import random
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.plugins.llama_cpp.sample_images import png

from puna.backend import (
    Finish,
    InvalidRequestError,
    ModelSpec,
    Prefill,
    PromptTooLongError,
    Sampling,
    SequenceRequest,
    TextDelta,
    UnsupportedError,
)
from puna_llama_cpp import LlamaCppBackend
from puna_llama_cpp.vision import embedding_cache, projector

MODELS = Path(__file__).parents[3] / "models"
CASES = json.loads((Path(__file__).parent / "images.json").read_text())
GREEDY = Sampling(temperature=0)
ROAMER_MEDIA = 1024
"""The least number of vectors of an image for models of its architecture."""


@pytest.fixture
def load_with_projector(load):
    """Load a model with a projector."""

    async def load_with_projector(name="chatter", projector_name="chatter-eye", **spec):
        return await load(name, projector_paths=(str(MODELS / f"{projector_name}.gguf"),), **spec)

    return load_with_projector


@pytest.fixture
def ask(write):
    """Have a model write and return its text and its end."""

    async def ask(model, prompt, *media, **request):
        texts, end = await write(model, prompt, media=media, **{"max_tokens": 12, **request})
        return "".join(texts), end

    return ask


@pytest.mark.parametrize("case", CASES, ids=[f"{case['projector']}: {case['prompt']}" for case in CASES])
async def test_the_answer_is_that_of_ollama(load_with_projector, ask, case):
    model = await load_with_projector(case["model"], case["projector"], parallel=1)
    text, end = await ask(model, case["prompt"], *(png(*image) for image in case["images"]))
    assert (text, end.prompt_tokens, end.output_tokens) == (case["text"], case["prompt_tokens"], case["output_tokens"])


async def test_what_it_is(load_with_projector):
    with_eye, without = await load_with_projector(), await LlamaCppBackend().load(spec("chatter"), lambda done: None)
    await without.aclose()
    assert with_eye.facts.vision
    assert not without.facts.vision
    assert with_eye.facts.size_bytes - without.facts.size_bytes >= (MODELS / "chatter-eye.gguf").stat().st_size


def spec(name, projector_name=None):
    paths = (str(MODELS / f"{projector_name}.gguf"),) if projector_name else ()
    return ModelSpec(path=str(MODELS / f"{name}.gguf"), projector_paths=paths, threads=1, parallel=1)


@pytest.mark.parametrize(
    ("projector_name", "why"),
    [("roamer-eye", "mismatch between text model"), ("scripted", "Failed to load CLIP model")],
)
async def test_a_projector_of_another_kind_is_refused(projector_name, why):
    with pytest.raises(InvalidRequestError, match=why):
        await LlamaCppBackend().load(spec("chatter", projector_name), lambda done: None)


async def test_numbers_say_which_image_stands_where(load_with_projector, ask):
    model = await load_with_projector()
    there, _ = await ask(model, "a [img-0] b [img-1]", png(1), png(2))
    assert (await ask(model, "a [img-1] b [img-0]", png(2), png(1)))[0] == there
    assert (await ask(model, "a [img-1] b [img-0]", png(1), png(2)))[0] != there


async def test_only_the_first_marker_of_an_image_is_one(load_with_projector, ask):
    model = await load_with_projector()
    once, twice = await ask(model, "[img-0] x", png(1)), await ask(model, "[img-0] x[img-0][img-7]", png(1))
    assert twice[1].prompt_tokens == once[1].prompt_tokens + len("[img-0][img-7]")


async def test_a_prompt_may_end_with_an_image(load_with_projector, ask):
    """The image is also evaluated in batches of five vectors, the last of which has the logits."""
    expected = await ask(await load_with_projector(), "look: [img-0]", png(1))
    again = await ask(await load_with_projector(batch_size=5), "look: [img-0]", png(1))
    assert (expected[0], expected[1].prompt_tokens) == (again[0], again[1].prompt_tokens)


async def test_what_was_seen_lately_is_not_encoded_again(load_with_projector, ask):
    model = await load_with_projector(parallel=1)
    text, first = await ask(model, "what is [img-0] this", png(1))
    again = await ask(model, "what is [img-0] this", png(1))
    assert (again[0], first.cached_prompt_tokens, again[1].cached_prompt_tokens) == (text, 0, first.prompt_tokens - 1)
    kept = model._projector._cache._chunks
    assert len(kept) == 1
    await ask(model, "elsewhere [img-0]", png(1))
    assert len(kept) == 1
    await ask(model, "elsewhere [img-0]", png(2))
    await ask(model, "elsewhere [img-0]", png(1), cache_salt="somebody else's")
    assert len(kept) == 3


async def test_prefixes_are_shared_up_to_an_image_that_differs(load_with_projector, ask):
    model = await load_with_projector(parallel=1)
    _, end = await ask(model, "one [img-0] two [img-1]", png(1), png(2))
    first = end.prompt_tokens - len(" two ") - 16
    assert (await ask(model, "one [img-0] two [img-1]", png(1), png(3)))[
        1
    ].cached_prompt_tokens == end.prompt_tokens - 16
    assert (await ask(model, "one [img-0] too", png(1)))[1].cached_prompt_tokens == first + len(" t")
    assert (await ask(model, "one [img-0] too", png(4)))[1].cached_prompt_tokens == first - 16


async def test_images_that_are_forgotten_are_encoded_again(load_with_projector, ask, monkeypatch):
    monkeypatch.setattr(embedding_cache, "_MAX_BYTES", 0)
    model = await load_with_projector()
    expected = [(await ask(await load_with_projector(), "so [img-0]", png(number)))[0] for number in (1, 2)]
    for _ in range(2):
        assert [(await ask(model, "so [img-0]", png(number)))[0] for number in (1, 2)] == expected
    assert len(model._projector._cache._chunks) == 1


async def test_samplers_see_words_only(load_with_projector, ask):
    model = await load_with_projector()
    odd = Sampling(temperature=0, repeat_penalty=1.9, repeat_last_n=-1, frequency_penalty=0.5, presence_penalty=0.5)
    text, end = await ask(model, "so [img-0]", png(1), sampling=odd, top_logprobs=2)
    assert end.output_tokens == 12
    assert text != (await ask(model, "so [img-0]", png(1)))[0]


async def test_a_full_context_ends_the_answer(load_with_projector, ask):
    """Models with a projector are never shifted, as in Ollama, not even without an image."""
    model = await load_with_projector(context_length=256)
    endless = Sampling(temperature=0, logit_bias={2: float("-inf")})
    for media in ((png(1),), ()):
        _, end = await ask(model, "so [img-0]", *media, sampling=endless, max_tokens=1000)
        assert (end.reason, end.prompt_tokens + end.output_tokens) == ("length", 256)


async def test_images_count_in_what_is_too_long(load_with_projector, ask):
    model = await load_with_projector(context_length=256)
    assert (await ask(model, "x" * 236 + "[img-0]", png(1), max_tokens=1))[1].prompt_tokens == 253
    with pytest.raises(PromptTooLongError) as caught:
        await ask(model, "x" * 239 + "[img-0]", png(1))
    assert (caught.value.prompt_tokens, caught.value.context_length) == (256, 256)


@pytest.mark.parametrize(
    ("prompt", "media", "why"),
    [
        ("[img-0]", (b"no image",), "Failed to load image or audio file"),
        ("[img-0]", (b"",), "Failed to load image or audio file"),
        ("[img-0][img-1]", (png(1), png(1)[:99]), "Failed to load image or audio file"),
        ("nothing to see", (png(1),), "Failed to tokenize prompt"),
        ("[img-0]", (png(1), png(2)), "Failed to tokenize prompt"),
        ((1, 2, 3), (png(1),), "prompt of text"),
        ("".join(f"[img-{number}]" for number in range(257)), (png(1),) * 257, "more than 256 images"),
    ],
)
async def test_what_cannot_be_looked_at_is_refused(load_with_projector, ask, prompt, media, why):
    model = await load_with_projector()
    with pytest.raises(InvalidRequestError, match=why):
        await ask(model, prompt, *media)
    assert (await ask(model, "so"))[1].output_tokens == 12


async def test_images_may_not_take_all_memory_together(load_with_projector, ask, monkeypatch):
    monkeypatch.setattr(projector, "MAX_TOTAL_PIXELS", 2 * 40 * 30)
    model = await load_with_projector()
    await ask(model, "[img-0][img-1]", png(1), png(2))
    with pytest.raises(InvalidRequestError, match="2400 pixels together"):
        await ask(model, "[img-0][img-1][img-2]", png(3), png(4), png(5))
    await ask(model, "[img-0][img-1][img-2]", png(1), png(2), png(3))  # two of them need not be unpacked again
    monkeypatch.setattr(projector.image_decoder, "MAX_PIXELS", 1000)
    with pytest.raises(InvalidRequestError, match="image 1 has more than 1000 pixels"):
        await ask(model, "[img-0]", png(4))


async def test_a_model_without_a_projector_refuses(load, ask):
    with pytest.raises(UnsupportedError):
        await ask(await load(), "[img-0]", png(1))


async def test_others_write_on_while_an_image_is_evaluated(load_with_projector, ask):
    """A thousand vectors are evaluated in small parts beside a stream.

    The stream goes on between them with its usual text.
    """
    expected = (await ask(await load_with_projector("roamer", "roamer-eye"), "hello", max_tokens=900))[0]
    # The batch bounds the parts. A tiny model would be granted several hundred vectors for each of its fast steps.
    model = await load_with_projector("roamer", "roamer-eye", parallel=2, batch_size=64)
    assert (await ask(model, "so [img-0]", png(1), max_tokens=1))[1].prompt_tokens > ROAMER_MEDIA
    pieces: list[str] = []
    parts: list[tuple[type, int]] = []

    async def watch():
        request = SequenceRequest(prompt="but [img-0]", media=(png(1),), sampling=GREEDY, max_tokens=1)
        async with aclosing(model.generate(request)) as events:
            parts.extend([(type(event), len(pieces)) async for event in events])

    stream = SequenceRequest(prompt="hello", sampling=GREEDY, max_tokens=900)
    async with aclosing(model.generate(stream)) as events:
        watching = None
        async for event in events:
            if isinstance(event, TextDelta):
                pieces.append(event.text)
                watching = watching or asyncio.create_task(watch())
                if watching.done():
                    break
    assert watching is not None
    await watching
    assert expected.startswith("".join(pieces))
    between = {count for kind, count in parts if kind is Prefill}
    assert len(between) > ROAMER_MEDIA // 64 // 2  # pieces came between most of its parts


async def test_cancelled_in_the_middle_of_an_image(load_with_projector, ask):
    """The cached part ends before the image, and the next request with it gets the usual answer."""
    expected = (await ask(await load_with_projector("roamer", "roamer-eye"), "so [img-0]?", png(1)))[0]
    model = await load_with_projector("roamer", "roamer-eye", parallel=1, batch_size=100)
    request = SequenceRequest(prompt="so [img-0]?", media=(png(1),), sampling=GREEDY, max_tokens=1)
    async with aclosing(model.generate(request)) as events:
        async for event in events:
            assert isinstance(event, Prefill)
            if 300 < event.done_tokens < ROAMER_MEDIA:
                break
    text, end = await ask(model, "so [img-0]?", png(1))
    assert (text, end.cached_prompt_tokens) == (expected, 1 + len("so <|vision_start|>") - len("<|vision_start|>") + 16)


async def test_cancelled_while_waiting_to_be_encoded(load_with_projector, ask):
    model = await load_with_projector()
    with model._projector._encode_lock:  # another image is being encoded
        waiting = asyncio.create_task(ask(model, "so [img-0]", png(1)))
        while not model._encoder_pool._threads:  # noqa: ASYNC110 (the pool tells nobody)
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    model._encoder_pool.submit(lambda: None).result(10)
    assert (await ask(model, "so [img-0]", png(2)))[1].output_tokens == 12
    assert len(model._projector._cache._chunks) == 1


async def test_closing_waits_for_running_encoders(ask):
    model = await LlamaCppBackend().load(spec("roamer", "roamer-eye"), lambda done: None)
    tasks = [asyncio.create_task(ask(model, "so [img-0]", png(number), max_tokens=1)) for number in range(6)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await model.aclose()


@pytest.mark.parametrize(
    ("name", "projector_name"), [("chatter", "chatter-eye"), ("chatter", "chatter-gaze"), ("roamer", "roamer-eye")]
)
async def test_whatever_is_shown_the_engine_goes_on(load_with_projector, ask, name, projector_name):
    model = await load_with_projector(name, projector_name, parallel=3, batch_size=48)
    expected = (await ask(await load_with_projector(name, projector_name), "so [img-0]", png(2)))[0]
    draw = random.Random(1)

    async def run(most):
        count = draw.choice((0, 1, 1, 2)) if name == "chatter" else draw.choice((0, 1))
        prompt = "".join(f"{draw.choice(('', 'so', 'x' * 70))}[img-{number}]" for number in range(count))
        request = SequenceRequest(
            prompt=prompt + draw.choice(("", "hello")),
            media=tuple(
                png(draw.randrange(3), 8 * draw.randrange(1, 9), 8 * draw.randrange(1, 9)) for _ in range(count)
            ),
            sampling=Sampling(temperature=draw.choice((0, 1)), repeat_penalty=draw.choice((1, 1.3))),
            max_tokens=draw.choice((0, 1, 30)),
            top_logprobs=draw.choice((None, 2)),
        )
        got = 0
        async with aclosing(model.generate(request)) as events:
            async for event in events:
                got += 1
                if got == most or isinstance(event, Finish):
                    return

    async with asyncio.timeout(120):
        await asyncio.gather(*(run(draw.choice((1, 3, 10**6))) for _ in range(24 if name == "chatter" else 4)))
        assert (await ask(model, "so [img-0]", png(2)))[0] == expected
