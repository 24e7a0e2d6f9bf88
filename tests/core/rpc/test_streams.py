import asyncio

import pytest

from puna.backend import TokenLogprob
from puna.rpc import streams
from puna.rpc.streams import collected, weight_of_deltas, written
from puna.rpc.writing import AnswerContext
from puna.serving.activity import Activity
from puna.serving.answers import Delta, Done, Progress

A, B, DONE = Delta(text="a"), Delta(text="b"), Done(reason="stop")


class Context:
    def __init__(self):
        self.messages = []

    async def write(self, message):
        self.messages.append(message)


class Answer:
    """An answer's events; notes whether its generator was closed. `...` stands for an event that never comes."""

    def __init__(self, *events):
        self.events = events
        self.closed = False

    async def __call__(self, tell=lambda _: None):
        try:
            for event in self.events:
                if event is ...:
                    await asyncio.sleep(30)
                elif isinstance(event, Progress):
                    tell(event)
                else:
                    yield event
        finally:
            self.closed = True


async def test_deltas_are_collected_and_counted():
    with Activity().entered("m", "Chat") as entry:
        assert await collected(Answer(A, B, DONE)(), entry) == ([A, B], DONE)
        assert entry.output_tokens == 2


async def test_an_answer_without_an_end_is_an_error():
    with Activity().entered("m", "Chat") as entry:
        with pytest.raises(RuntimeError, match="without a Done"):
            await collected(Answer(A)(), entry)
        with pytest.raises(RuntimeError, match="without a Done"):
            await written(Answer(A), list, Context(), entry)


async def test_each_message_has_what_was_ready():
    context = Context()
    with Activity().entered("m", "Chat") as entry:
        await written(Answer(Progress(phase="queued", position=2), A, B, DONE), list, context, entry)
        assert [event for message in context.messages for event in message] == [
            Progress(phase="queued", position=2),
            A,
            B,
            DONE,
        ]
        assert (entry.output_tokens, entry.queue_position) == (2, 2)


async def test_deltas_of_several_messages_are_counted_together():
    async def slow(_tell):
        for event in (A, B, DONE):
            yield event
            await asyncio.sleep(0.01)

    context = Context()
    with Activity().entered("m", "Chat") as entry:
        await written(slow, list, context, entry)
        assert context.messages == [[A], [B], [DONE]]
        assert entry.output_tokens == 2


async def test_on_a_socket_deltas_of_a_few_milliseconds_are_one_message(monkeypatch):
    async def slow(_tell):
        for event in (Progress(phase="prefill", done_tokens=1, total_tokens=1), A, B, A, DONE):
            yield event
            await asyncio.sleep(0.001)

    class Socket(Context):
        def peer(self):
            return "unix:"

        def disable_next_message_compression(self):
            pass

    # Only the end of the answer ends so long a pause.
    monkeypatch.setattr(streams, "MESSAGE_SECONDS", 1000.0)
    context = Socket()
    with Activity().entered("m", "Chat") as entry:
        answer = AnswerContext(context, 30.0)
        await written(slow, list, answer, entry)
        answer.close()
    (prefill, first, *rest) = context.messages
    assert [type(each) for each in prefill] == [Progress]
    assert first == [A]
    assert rest == [[B, A, DONE]]


@pytest.mark.parametrize("stream", [True, False])
async def test_cancellation_closes_the_answer_first(stream):
    answer = Answer(A, ...)
    context = Context()

    async def call():
        with Activity().entered("m", "Chat") as entry:
            await (written(answer, list, context, entry) if stream else collected(answer(), entry))

    task = asyncio.create_task(call())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answer.closed
    assert context.messages == ([[A]] if stream else [])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("hangs_up", [True, False])
async def test_an_answer_that_is_cancelled_by_id_keeps_its_output(stream, hangs_up):
    answer, context, activity = Answer(A, ...), Context(), Activity()

    async def call():
        with activity.entered("m", "Chat") as entry:
            if not stream:
                return await collected(answer(), entry)
            await written(answer, list, context, entry)
            return context.messages[0], context.messages[1][0]

    task = asyncio.create_task(call())
    for _ in range(20):
        await asyncio.sleep(0)
    (entry,) = activity.entries()
    assert activity.cancel(entry.id)
    if hangs_up:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        deltas, done = await task
        assert deltas == [A]
        assert (done.reason, done.usage.output_tokens) == ("cancelled", 1)
        assert task.cancelling() == 0
    assert answer.closed


async def test_a_call_whose_client_does_not_read_is_cancelled_with_a_status():
    """gRPC could not take the end: it has not delivered the message before."""
    activity = Activity()

    class Stalled(Context):
        async def write(self, message):
            await asyncio.sleep(60)

    async def call():
        with activity.entered("m", "Chat") as entry:
            await written(Answer(A, ...), list, Stalled(), entry)

    task = asyncio.create_task(call())
    for _ in range(20):
        await asyncio.sleep(0)
    activity.cancel(activity.entries()[0].id)
    with pytest.raises(asyncio.CancelledError):
        await task


def test_log_probabilities_weigh_with_their_alternatives():
    entry = TokenLogprob(token_id=1, raw=b"a", logprob=-1.0, top=())
    top = TokenLogprob(token_id=1, raw=b"a", logprob=-1.0, top=(entry,) * 20)
    assert weight_of_deltas([A, B]) == 2
    assert weight_of_deltas([Delta(logprobs=(entry, top))]) == 1 + 2 + 22


async def test_progress_can_be_declined():
    context = Context()
    queued, prefill = Progress(phase="queued", position=2), Progress(phase="prefill", done_tokens=1, total_tokens=2)

    async def answer(tell):
        tell(queued)
        await asyncio.sleep(0)
        yield prefill
        await asyncio.sleep(0.01)
        for event in (prefill, A, DONE):
            yield event

    with Activity().entered("m", "Chat") as entry:
        await written(answer, list, context, entry, omit_progress=True)
        assert context.messages == [[A, DONE]]
        assert entry.queue_position == 2


async def test_several_answers_that_are_cancelled_by_id_keep_their_output():
    activity = Activity()
    answer = Answer(A, Delta(text="b", choice=2), ...)

    async def call():
        with activity.entered("m", "Chat") as entry:
            return await collected(answer(), entry)

    task = asyncio.create_task(call())
    for _ in range(20):
        await asyncio.sleep(0)
    assert activity.cancel(activity.entries()[0].id)
    _, done = await task
    assert [(end.choice, end.reason) for end in done.choices] == [(choice, "cancelled") for choice in range(3)]
    assert answer.closed
