"""Runs one model in many ways and compares what it writes, or the vectors that it returns.

`python -m tools.architectures.checks MODEL.gguf [QUANTIZED.gguf]` prints what it found as JSON.

Weights and KV cache are F32, so that two ways to the same text differ by rounding alone: log-probabilities by 1e-5. A
token that is missing, or of another sequence, changes them by a tenth. The difference of two texts is the largest one
of the log-probabilities of their tokens, up to the first place where the tokens part. There it is that of the most
probable tokens, which a tie explains.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from statistics import median
from unittest.mock import patch

from puna.backend import Finish, LoadedModel, ModelSpec, Sampling, SequenceRequest, TextDelta, TokenLogprob
from puna_ggml_kernels import loader
from puna_llama_cpp import LlamaCppBackend

MOST = {"kernels": 0.25, "kernels, at worst": 2.5, "exact": 1e-5, "draft bits": 0.0}
"""By check: the largest difference that other sums explain, in quantized weights with an F16 cache.

The last bit of a sum may choose another expert, which changes one text or two of the six. So "kernels" is the median of
the six texts. With the kernels, drafts change no bit."""
MOST_ROUNDING = 0.003
"""The same for all other checks."""
_WITHOUT_KERNELS = "--without-kernels"
_WORDS = 500
"""Tokens of a prompt are drawn from so many."""
_FIRST = 7
_BIAS = dict.fromkeys(range(_FIRST), -100.0)
"""Keeps the control tokens out of an answer, which one of them would end."""

Text = list[TokenLogprob]


class Runner:
    """Loads a model in different ways and has it write."""

    def __init__(self, path: str) -> None:
        """`path`: a GGUF file of F32 weights."""
        self._path = path
        self.differences: dict[str, float] = {}
        """By check: the largest difference that it found."""
        self.facts: dict[str, object] = {}
        """What the model can do."""

    @asynccontextmanager
    async def model(self, **spec: object) -> AsyncGenerator[LoadedModel]:
        """Load the model with these fields of a ModelSpec, one thread, one slot and an F32 cache unless they differ."""
        plain = {"threads": 1, "parallel": 1, "context_length": 1024, "kv_cache_type": "f32", "flash_attention": "off"}
        given = ModelSpec(**{"path": self._path, **plain, **spec})
        model = await LlamaCppBackend().load(given, lambda _: None)
        try:
            yield model
        finally:
            await model.aclose()

    async def anew(self, prompt: Sequence[int], tokens: int, **spec: object) -> Text:
        """Return what a model writes that was just loaded."""
        async with self.model(**spec) as model:
            return (await written(model, prompt, tokens))[0]

    def compare(self, check: str, left: Text, right: Text) -> None:
        """Note how much two texts differ."""
        self.differences[check] = max(self.differences.get(check, 0.0), difference(left, right))

    async def check_reuse(self) -> None:
        """Continue, shorten and change a prompt whose beginning is in memory."""
        prompt = words(1, 300)
        first = await self.anew(prompt, 30)
        said = [each.token_id for each in first]
        prompts = (prompt, prompt + said + words(9, 20), prompt[:200] + words(8, 40), prompt[:60], prompt + words(7, 5))
        cached = []
        self.facts["lively"] = min(each.logprob for each in first) < -0.5  # a text without a doubt would hide faults
        async with self.model() as model:
            self.compare("repeated load", (await written(model, prompt, 30))[0], first)
            found = [await written(model, each, 20) for each in prompts]
        for each, (text, end) in zip(prompts, found, strict=True):
            cached.append(end.cached_prompt_tokens)
            self.compare("reuse", text, await self.anew(each, 20))
        self.facts["continues"] = cached[1] >= len(prompt)
        self.facts["shares"] = cached[2] > 0

    async def check_company(self) -> None:
        """Write eight texts at once, twice: from nothing, and with a beginning in memory."""
        prompts = [words(2, 120) + words(10 + number, 3 + 5 * number) for number in range(8)]
        async with self.model(parallel=8) as model:
            self.facts["parallel"] = model.facts.parallel > 1
            for check in ("company", "company again"):
                found = await asyncio.gather(*(written(model, each, 30) for each in prompts))
                for each, (text, _) in zip(prompts, found, strict=True):
                    self.compare(check, text, await self.anew(each, 30))

    async def check_cancellation(self) -> None:
        """Go on where a text was cancelled, and beside one that is."""
        prompt = words(5, 200)
        async with self.model(parallel=2) as model:
            async with aclosing(model.generate(request(prompt, 50))) as running:
                seen = 0
                async for _ in running:
                    seen += 1
                    if seen == 6:
                        break
            text, _ = await written(model, prompt + words(6, 3), 20)
            cancelled = asyncio.create_task(written(model, words(4, 600), 20))
            beside = asyncio.create_task(written(model, words(3, 90), 20))
            await asyncio.sleep(0.02)
            cancelled.cancel()
            self.compare("cancellation", (await beside)[0], await self.anew(words(3, 90), 20))
        self.compare("cancellation", text, await self.anew(prompt + words(6, 3), 20))

    async def check_shift(self) -> None:
        """Fill a context, and write other texts in the same slot afterwards."""
        prompt, other = words(3, 150), words(4, 20)
        async with self.model(context_length=256) as model:
            full, end = await written(model, prompt, 260)
            self.facts["shifts"] = end.output_tokens == 260
            found = [await written(model, each, 20) for each in (prompt, other)]
        # A shifted text has no other way to it. Its log-probabilities must be numbers.
        self.compare("shift", full, full)
        for each, (text, _) in zip((prompt, other), found, strict=True):
            self.compare("shift", text, await self.anew(each, 20, context_length=256))

    async def check_disk(self) -> None:
        """Unload the model, and continue, shorten and change a prompt that it has stored."""
        prompt = words(5, 500)
        # By its name, since llama.cpp comes with it. A tiny model is evaluated faster than it is read.
        always = patch.multiple("puna_llama_cpp.kv_store.cache", _ASSUMED_BYTES_PER_SECOND=1e18, _CLOSE_SECONDS=60.0)
        with tempfile.TemporaryDirectory() as folder, always:
            spec = {"parallel": 2, "backend_options": {"kv_cache_folder": folder}}
            said = [each.token_id for each in await self.anew(prompt, 20, **spec)]
            longer = prompt + said + words(3, 9)
            for each in (longer, prompt[:400] + words(2, 9), prompt[:450] + words(2, 9)):
                async with self.model(**spec) as model:
                    text, end = await written(model, each, 20)
                self.compare("disk", text, await self.anew(each, 20))
                if each is longer:
                    self.facts["restores"] = end.cached_prompt_tokens >= len(prompt)

    async def check_drafts(self) -> None:
        """Write with and without draft tokens."""
        prompt = words(6, 40) * 4
        plain = await self.anew(prompt, 80, backend_options={"speculative_decoding": False})
        async with self.model() as model:
            text, _ = await written(model, prompt, 80)
            again, end = await written(model, prompt, 80)
        self.compare("drafts", text, plain)
        self.compare("drafts", again, plain)
        self.facts["drafts"] = end.draft_tokens > 0
        if loader.installed() is not None:
            usual = {"kv_cache_type": "", "flash_attention": ""}
            found = []
            for wanted in (True, False):
                async with self.model(**usual, backend_options={"speculative_decoding": wanted}) as model:
                    await written(model, prompt, 80)
                    # Most tokens of the second answer are drafted from the first.
                    found.append((await written(model, prompt, 80))[0])
            self.compare("draft bits", *found)

    async def check_kernels(self, path: str) -> None:
        """Write with the kernels, with those that keep ggml's bits, and with ggml alone. `path`: quantized weights."""
        if loader.installed() is None:
            return
        # In a process of its own, where ggml may repack the weights. Its bits are those.
        command = [sys.executable, "-m", "tools.architectures.checks", _WITHOUT_KERNELS, path]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        plain = [[TokenLogprob(b"", *each) for each in text] for text in json.loads(done.stdout)]
        found = [difference(*pair) for pair in zip(await self.quantized_texts(path), plain, strict=True)]
        self.differences |= {"kernels": median(found), "kernels, at worst": max(found)}
        for text, other in zip(await self.quantized_texts(path, exact_kernels=True), plain, strict=True):
            self.compare("exact", text, other)
            if len(text) != len(other):
                self.differences["exact"] = float("inf")

    async def quantized_texts(self, path: str, **options: bool) -> list[Text]:
        """Return what quantized weights write, as most users have them: with flash attention and an F16 cache.

        Without drafts, since ggml gives several columns other bits than one.
        """
        options = {"speculative_decoding": False, **options}
        spec = {"path": path, "kv_cache_type": "", "flash_attention": "", "backend_options": options}
        prompts = [words(seed, length) for seed, length in enumerate((1, 3, 7, 40, 150, 600))]
        async with self.model(**spec) as model:
            return [(await written(model, each, 24, salt=str(number)))[0] for number, each in enumerate(prompts)]

    async def check_vectors(self) -> None:
        """Embed texts alone, together, and without the kernels."""
        texts = ["the wind", "go on " * 40, "a stone and the river", "x", "the sun " * 9]
        async with self.model() as model:
            alone = [(await model.embed([text]))[0].values for text in texts]
            together = [each.values for each in await model.embed(texts)]
        library = loader.installed()
        if library is not None:
            library.puna_enable(False)
        async with self.model() as model:
            plain = [each.values for each in await model.embed(texts)]
        if library is not None:
            library.puna_enable(True)
        for check, others in (("company", together), ("kernels", plain)):
            pairs = [pair for left, right in zip(alone, others, strict=True) for pair in zip(left, right, strict=True)]
            self.differences[check] = max(apart(left, right) for left, right in pairs)
        # Vectors that are alike would agree in any way.
        self.facts["distinct"] = all(
            max(apart(a, b) for a, b in zip(left, right, strict=True)) > MOST_ROUNDING
            for left, right in itertools.pairwise(alone)
        )


def words(seed: int, count: int) -> list[int]:
    """Return a prompt of ordinary tokens, another one for each seed."""
    return [_FIRST + (seed * 31 + step * 7 * (1 + seed % 3) + step * step) % _WORDS for step in range(count)]


def request(prompt: Sequence[int], tokens: int, salt: str = "") -> SequenceRequest:
    """Ask for the most probable text. Prompts of other salts share nothing with it."""
    sampling = Sampling(temperature=0, logit_bias=_BIAS)
    return SequenceRequest(prompt=tuple(prompt), max_tokens=tokens, sampling=sampling, top_logprobs=1, cache_salt=salt)


async def written(model: LoadedModel, prompt: Sequence[int], tokens: int, salt: str = "") -> tuple[Text, Finish]:
    """Return the tokens that a model writes, and how the text ended."""
    text: Text = []
    async for event in model.generate(request(prompt, tokens, salt)):
        if isinstance(event, TextDelta):
            text += event.logprobs
        elif isinstance(event, Finish):
            return text, event
    raise AssertionError("a text without an end")


def apart(left: float, right: float) -> float:
    """Return how far two numbers are apart; infinity if one is none."""
    distance = abs(left - right)
    return distance if distance == distance else float("inf")


def difference(left: Text, right: Text) -> float:
    """Return the difference of two texts, as the module's docstring defines it."""
    most = 0.0
    for one, other in zip(left, right, strict=False):
        most = max(most, apart(one.logprob, other.logprob))
        if one.token_id != other.token_id:
            return most
    # The rest of the longer text has no counterpart: an incomplete character at the end of the other is not reported.
    return most


async def run(report: Runner, quantized: str) -> None:
    """Run all checks that suit the model."""
    async with report.model() as model:
        report.facts["generates"] = model.facts.generates
        report.facts["embeds"] = model.facts.embedding_length > 0
    if not report.facts["generates"]:
        if report.facts["embeds"]:
            await report.check_vectors()
        return
    if quantized:
        report.facts["last"] = "check_kernels"
        await report.check_kernels(quantized)
    for check in (
        report.check_reuse,
        report.check_company,
        report.check_cancellation,
        report.check_shift,
        report.check_disk,
        report.check_drafts,
    ):
        report.facts["last"] = check.__name__
        await check()
    del report.facts["last"]


def main() -> int:
    """Print what the checks of a model found, also when one of them fails."""
    if sys.argv[1] == _WITHOUT_KERNELS:
        texts = asyncio.run(Runner("").quantized_texts(sys.argv[2], kernels=False))
        print(json.dumps([[(each.token_id, each.logprob) for each in text] for text in texts]))
        return 0
    path, quantized = (*sys.argv[1:], "")[:2]
    report = Runner(path)
    error = ""
    try:
        asyncio.run(run(report, quantized))
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    print(json.dumps({"differences": report.differences, "facts": report.facts, "error": error}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
