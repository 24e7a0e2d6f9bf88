"""A backend that breaks the contract. Put this folder on PYTHONPATH and it is installed.

The last word of a prompt, of a text to tokenize or to embed, or of a query, and the options `load`, `facts`, `step` and
`close` name what it does: a name of RAISE, or of a method of Model that begins with `gen_`, `tok_`, `emb_` or `rank_`.
Any other word is served as the contract says.
"""

# ruff: noqa: ASYNC110, ASYNC251 (it blocks the loop on purpose)

import asyncio
import contextlib
import os
import sys
import threading
import time
from pathlib import Path

from puna.backend import (
    Backend,
    DocumentScores,
    Embedding,
    Finish,
    InvalidRequestError,
    LoadedModel,
    ModelFacts,
    Prefill,
    PromptTooLongError,
    TextDelta,
    TokenLogprob,
)

SECRET = "the-words-of-the-prompt"


class StrRaisesError(Exception):
    def __str__(self):
        raise KeyboardInterrupt


class StrIsNumberError(Exception):
    def __str__(self):
        return 7


class Sly(str):
    def __getitem__(self, key):
        raise SystemExit

    def encode(self, *args):
        raise SystemExit


class StrIsSlyError(Exception):
    def __str__(self):
        return Sly("sly")


class Own(BaseException):
    pass


class NumberlessError(PromptTooLongError):
    def __init__(self):
        Exception.__init__(self, "how long, nobody knows")


class DisguisedError(Exception):
    @property
    def __class__(self):
        raise SystemExit


def deep(depth=0):
    return deep(depth + 1) + 1


def raise_deep():
    deep()


def stop_iteration():
    next(iter(()))


def throw(make):
    def do():
        raise make()

    return do


RAISE = {
    "cancelled": throw(asyncio.CancelledError),
    "generator_exit": throw(GeneratorExit),
    "interrupt": throw(KeyboardInterrupt),
    "exit": throw(lambda: SystemExit(3)),
    "key": throw(lambda: KeyError("size")),
    "own": throw(Own),
    "group": throw(lambda: BaseExceptionGroup("two at once", [KeyError(SECRET), KeyboardInterrupt()])),
    "str_raises": throw(StrRaisesError),
    "str_number": throw(StrIsNumberError),
    "str_sly": throw(StrIsSlyError),
    "str_long": throw(lambda: ValueError("é" * 5_000_000)),
    "str_surrogate": throw(lambda: ValueError("half \ud800")),
    "numberless": throw(NumberlessError),
    "disguised": throw(DisguisedError),
    "deep": raise_deep,
    "stop": stop_iteration,
    "stop_async": throw(StopAsyncIteration),
    "memory": throw(MemoryError),
    "quote": throw(lambda: ValueError(f"cannot read {SECRET}")),
    "refuse_long": throw(lambda: InvalidRequestError("x" * 5_000_000)),
}


class Model(LoadedModel):
    def __init__(self, options):
        self._options = options
        self._steps = 0

    @property
    def facts(self):
        word = self._options.get("facts", "")
        RAISE.get(word, lambda: None)()
        if word == "none":
            return None
        fine = {"context_length": 512, "parallel": 4, "embedding_length": 3}
        return ModelFacts(**fine | FACTS.get(word, {}))

    def note(self, line):
        if "journal" in self._options:
            with Path(self._options["journal"]).open("a") as file:
                file.write(f"{line}\n")

    def step(self):
        word = self._options.get("step", "")
        RAISE.get(word, lambda: None)()
        return {"text": "seven", "negative": -7, "huge": 2**80}.get(word)

    def generate(self, request, /):
        word = request.prompt.split()[-1]
        if word == "gen_none":
            return None
        if word == "gen_coroutine":
            return asyncio.sleep(0)
        if word == "gen_raises_at_once":
            raise KeyboardInterrupt
        return self._generate(request, word)

    async def _generate(self, request, word):
        yield TextDelta("a")
        RAISE.get(word, lambda: None)()
        method = getattr(self, word, None) if word.startswith("gen_") else None
        if method is None:
            yield TextDelta("b")
        else:
            async for event in method(request):
                yield event
        yield Finish(reason="stop", prompt_tokens=1, output_tokens=2)

    async def gen_cancels_itself(self, request):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)
        yield TextDelta("b")

    async def gen_surrogate(self, request):
        yield TextDelta("half \ud800")

    async def gen_no_text(self, request):
        yield TextDelta(None)

    async def gen_bytes(self, request):
        yield TextDelta(b"\xff")

    async def gen_no_event(self, request):
        yield "b"

    async def gen_reason(self, request):
        yield Finish(reason="tired")

    async def gen_negative(self, request):
        yield Finish(reason="stop", output_tokens=-3)

    async def gen_too_many(self, request):
        yield Finish(reason="stop", output_tokens=2**40)

    async def gen_late_prefill(self, request):
        yield Prefill(1, 1)

    async def gen_nan(self, request):
        yield TextDelta("b", (TokenLogprob(b"b", 7, float("nan")),))

    async def gen_nan_top(self, request):
        yield TextDelta("b", (TokenLogprob(b"b", 7, -0.5, (TokenLogprob(b"b", 7, float("-inf")),)),))

    async def gen_bad_id(self, request):
        yield TextDelta("b", (TokenLogprob(b"b", -7, -0.5),))

    async def gen_strange_stop(self, request):
        yield Finish(reason="stop", stop_sequence="never asked for")

    async def gen_floods(self, request):
        while True:
            yield TextDelta("x" * 100_000)

    async def gen_huge(self, request):
        yield TextDelta("x" * 40_000_000)

    async def gen_spins(self, request):
        while True:
            pass
        yield

    async def gen_never_yields(self, request):
        await asyncio.sleep(3600)
        yield

    async def gen_ignores_cancel(self, request):
        self.note("start")
        while True:
            try:
                await asyncio.sleep(0.01)
                yield TextDelta("x")
            except (asyncio.CancelledError, GeneratorExit):
                self.note("ignored")

    async def gen_never_closes(self, request):
        self.note("start")
        try:
            while True:
                yield TextDelta("x")
                await asyncio.sleep(0.01)
        finally:
            self.note("closing")
            while True:
                await asyncio.sleep(3600)

    async def gen_leaves_a_task(self, request):
        async def fail():
            raise ValueError(SECRET)

        task = asyncio.create_task(fail())
        await asyncio.sleep(0.01)
        del task
        yield TextDelta("b")

    async def gen_thread_fails(self, request):
        def fail():
            raise ValueError(SECRET)

        threading.Thread(target=fail).start()
        await asyncio.sleep(0.05)
        yield TextDelta("b")

    async def gen_thread_exits(self, request):
        threading.Thread(target=sys.exit).start()
        await asyncio.sleep(0.05)
        yield TextDelta("b")

    async def gen_ends_process(self, request):
        os._exit(5)
        yield

    async def gen_aborts(self, request):
        os.abort()
        yield

    async def _do(self, kind, word, fine):
        await asyncio.sleep(0)
        RAISE.get(word, lambda: None)()
        if word == f"{kind}_never":
            await asyncio.sleep(3600)
        if word == f"{kind}_spins":
            while True:
                pass
        if word == f"{kind}_cancels_itself":
            asyncio.current_task().cancel()
        return ANSWERS[kind].get(word, fine)

    async def tokenize(self, text, /, *, add_special, parse_special):
        return await self._do("tok", text.split()[-1] if text.strip() else "", [ord(each) for each in text])

    async def detokenize(self, tokens, /, *, special):
        if tokens[0] == 99:
            return [b"x"]
        return [chr(each).encode() for each in tokens]

    async def embed(self, inputs, /, *, raw=False):
        return await self._do("emb", str(inputs[-1]).split()[-1], [vector(each) for each in range(len(inputs))])

    async def rerank(self, query, documents, /):
        return DocumentScores(await self._do("rank", query.split()[-1], [0.5] * len(documents)))

    async def aclose(self):
        word = self._options.get("close", "")
        RAISE.get(word, lambda: None)()
        if word == "never":
            await asyncio.sleep(3600)
        if word == "spins":
            while True:
                pass


def vector(number):
    return Embedding((0.6, 0.8, float(number)), 1)


FACTS = {
    "no_slots": {"parallel": 0},
    "negative_context": {"context_length": -1},
    "negative_size": {"size_bytes": -5},
    "text_for_number": {"parallel": "many"},
    "huge_number": {"context_length": 2**40},
    "bad_bos": {"bos_id": -9},
    "long_bos": {"bos_text": "x" * 5_000_000},
    "surrogate": {"eos_text": "\ud800"},
}
ANSWERS = {
    "tok": {"tok_negative": [-1], "tok_text": ["a"], "tok_none": None, "tok_huge": [2**40]},
    "emb": {
        "emb_few": [],
        "emb_many": [vector(0)] * 5,
        "emb_unequal": [vector(0), Embedding((0.1,), 1)],
        "emb_wrong_length": [Embedding((0.1,), 1), Embedding((0.1,), 1)],
        "emb_nan": [Embedding((0.6, 0.8, float("nan")), 1)] * 2,
        "emb_text": ["a", "b"],
        "emb_none": None,
        "emb_negative_count": [Embedding((0.1, 0.2, 0.3), -4)] * 2,
    },
    "rank": {
        "rank_few": [0.5],
        "rank_many": [0.5] * 9,
        "rank_nan": [0.5, float("nan")],
        "rank_inf": [float("inf"), 0.5],
        "rank_text": ["good", "bad"],
    },
}


class HostileBackend(Backend):
    formats = ("hostile",)

    async def load(self, spec, report, /):
        model = Model(dict(spec.backend_options))
        word = model._options.get("load", "")
        model.note("load")
        RAISE.get(word, lambda: None)()
        match word:
            case "none":
                return None
            case "strange_reports":
                for each in (float("nan"), float("inf"), -3, "much", None, "0.5"):
                    report(each)
                await asyncio.sleep(0.05)
            case "many_reports":
                for each in range(200_000):
                    report(each / 200_000)
            case "blocks":
                time.sleep(3600)
            case "blocks_and_reports":
                for each in range(30):
                    report(each / 30)
                    time.sleep(0.1)
            case "ignores_cancel":
                while True:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(3600)
            case "dies":
                sys.stderr.write("oh no\n")
                os._exit(9)
            case "cancels_itself":
                asyncio.current_task().cancel()
                await asyncio.sleep(0)
        return model
