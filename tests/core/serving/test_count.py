from dataclasses import replace

import pytest
from tests.core.serving.asking import WEATHER, answered, prompted, said

from puna import errors
from puna.messages import Message, ToolChoice


async def counted(events):
    deltas, done = await answered(events)
    assert deltas == []
    assert done.counted is not None
    return done.counted


REQUESTS = {
    "a text": prompted("plain", "hello"),
    "a raw text": prompted("talker", "hello", raw=True),
    "token ids": prompted("plain", (100, 101, 102), raw=True),
    "a system message": prompted("talker", "hello", system="Be kind."),
    "a suffix": prompted("fill", "a", suffix="b"),
    "a context": prompted("plain", "hello", context=(100, 101)),
    "a conversation": said("talker", "hi", Message(role="assistant", content="ho"), "hi"),
    "tools": said("tools", "hi", tools=(WEATHER,)),
    "tools that may not be called": said("tools", "hi", tools=(WEATHER,), tool_choice=ToolChoice("none")),
    "thinking": said("thinker", Message(role="assistant", content="ho", thinking="why"), "hi"),
    "a template of the model's file": said("native", "hi", tools=(WEATHER,)),
    "a renderer": said("coder", "hi", tools=(WEATHER,)),
    "messages that are dropped": said("talker", *("word " * 30,) * 400),
    "a message that is cut": said("talker", "word " * 4000),
    "a prompt that is cut": prompted("plain", "word " * 4000),
    "a prompt far too long": prompted("plain", "word " * 200_000),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_the_count_is_that_of_the_request(serving, backend, request_):
    run = serving.chat if hasattr(request_, "messages") else serving.generate
    found = await counted(run(replace(request_, count_only=True)))
    assert backend.requests == [], "nothing is generated"
    _, done = await answered(run(request_))
    assert (found.prompt_tokens, found.truncated_tokens) == (done.usage.prompt_tokens, done.usage.truncated_tokens)
    assert found.context_length == 4096
    prompt = backend.requests[0].prompt
    assert found.token_ids == (prompt if isinstance(prompt, tuple) else tuple(byte + 3 for byte in prompt.encode()))


async def test_bos_counts(serving, backend):
    backend.facts["adds_bos"] = True
    assert (await counted(serving.generate(prompted("plain", "ab", count_only=True)))).token_ids == (1, 100, 101)


async def test_a_prompt_that_must_not_be_cut(serving):
    with pytest.raises(errors.ContextOverflowError):
        await counted(serving.generate(prompted("plain", "word " * 200_000, truncate=False, count_only=True)))


async def test_a_model_without_tokenizer_evaluates_the_prompt(serving, backend):
    backend.facts["tokenizer"] = False
    request = prompted("plain", "hello")
    found = await counted(serving.generate(replace(request, count_only=True)))
    assert (found.prompt_tokens, found.token_ids) == (5, ())
    assert [each.max_tokens for each in backend.requests] == [0]


async def test_the_capabilities_are_checked(serving):
    with pytest.raises(errors.CapabilityMissingError):
        await counted(serving.chat(said("talker", "hi", tools=(WEATHER,), count_only=True)))
