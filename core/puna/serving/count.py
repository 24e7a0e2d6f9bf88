"""Counts the prompt tokens of a request that is not run."""

from contextlib import aclosing
from dataclasses import replace

from puna.backend import Finish, SequenceRequest
from puna.serving.answers import Counted, Done, Usage
from puna.serving.sequence_builder import SequenceBuilder
from puna.serving.sequence_runner import run


async def counted(builder: SequenceBuilder, prompt: str | tuple[int, ...], media: tuple[bytes, ...]) -> Done:
    """Return the number of tokens that the model would evaluate for a rendered prompt.

    Only the backend can count the tokens of media, and those of a model without a tokenizer. Such a prompt is
    evaluated, which needs a slot and counts as usage. Raises what SequenceBuilder.sequence and `run` raise.
    """
    sequence, cut = await builder.sequence(prompt, media)
    facts, model = builder.lease.facts, builder.lease.model
    if media or not facts.tokenizer:
        number = await _evaluated(builder, sequence)
        return Done(counted=Counted(number, cut, facts.context_length), usage=Usage(prompt_tokens=number))
    # A prompt that was cut, or that came as token ids, is evaluated as it is. A text gets BOS, as the backend adds it.
    ids = sequence.prompt
    if isinstance(ids, str):
        ids = tuple(await model.tokenize(ids, add_special=True, parse_special=True))
    return Done(counted=Counted(len(ids), cut, facts.context_length, ids))


async def _evaluated(builder: SequenceBuilder, sequence: SequenceRequest) -> int:
    """Evaluate a prompt without generating; return the backend's count of its tokens."""
    number = 0
    async with aclosing(run(builder.lease.model, replace(sequence, max_tokens=0), guarded=False)) as events:
        async for event in events:
            if isinstance(event, Finish):
                number = event.prompt_tokens
    return number
