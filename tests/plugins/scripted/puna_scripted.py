"""A backend that does what the prompt says. Put this folder on PYTHONPATH and it is installed.

Prompts: words that are given back one piece each, with commands among them:
    @wait S       wait S seconds, as asyncio would
    @prefill N S  N steps of prefill, S seconds each
    @crash SIG    end the process by a signal, after writing to standard error
    @crash_once FILE  end the process by SIGKILL and create FILE, unless it exists
    @exit N       end the process with a status
    @refuse @long @unsupported @raise   raise InvalidRequestError, PromptTooLongError(9, 4) and so on
    @endless      pieces for ever
    @hang         keep the event loop for ever
    @ignore       ignore SIGTERM from now on
    @together N   N pieces at once
    @unended      end without a Finish
    @metadata     the metadata of the request, as JSON

Options: load = "refuse", "memory", "memory above 4096", "raise", "exit", "crash", "kill", "kill once", "slow", "stall",
"chatter";
size_bytes; journal = a file that hears what happens; the line "go on" in it ends the load "stall".
An adapter called @X does what load = X does.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from puna.backend import (
    Backend,
    Embedding,
    Finish,
    InvalidRequestError,
    LoadedModel,
    ModelFacts,
    ModelSpec,
    Prefill,
    PromptTooLongError,
    SequenceEvent,
    SequenceRequest,
    TextDelta,
    TokenLogprob,
    UnsupportedError,
    request_metadata,
)

TRAINED_CONTEXT = 8192


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


class Scripted(LoadedModel):
    def __init__(self, spec: ModelSpec) -> None:
        self._options = dict(spec.backend_options)
        self._facts = ModelFacts(
            context_length=min(spec.context_length, TRAINED_CONTEXT),
            parallel=spec.parallel or 4,
            size_bytes=int(self._options.get("size_bytes", 0)),
            bos_text="<s>",
            bos_id=1,
            embedding_length=3,
        )

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    def note(self, line: str) -> None:
        if "journal" in self._options:
            with Path(str(self._options["journal"])).open("a") as file:
                file.write(f"{line}\n")

    def noted(self, line: str) -> int:
        """Number of such lines in the journal, if there is one."""
        if "journal" not in self._options:
            return 0
        return Path(str(self._options["journal"])).read_text().splitlines().count(line)

    async def resumed(self, seconds: float) -> None:
        """Wait until a test writes "go on" into the journal, but not longer than some seconds."""
        for _ in range(int(seconds / 0.05)):
            if self.noted("go on"):
                break
            await asyncio.sleep(0.05)

    async def generate(self, request: SequenceRequest, /) -> AsyncGenerator[SequenceEvent]:
        self.note("start")
        pieces = 0
        try:
            words = iter(request.prompt.split() if isinstance(request.prompt, str) else map(str, request.prompt))
            for word in words:
                async for event in self._obey(word, words):
                    pieces += isinstance(event, TextDelta)
                    yield event
                if word == "@unended":
                    return
            yield Finish(reason="stop", prompt_tokens=4, output_tokens=pieces)
        except (GeneratorExit, asyncio.CancelledError):
            self.note("stopped")
            raise
        finally:
            self.note("end")

    async def _obey(self, word: str, words: "iter") -> AsyncGenerator[SequenceEvent]:
        if word == "@wait":
            await asyncio.sleep(float(next(words)))
        elif word == "@prefill":
            steps, seconds = int(next(words)), float(next(words))
            for step in range(steps):
                yield Prefill(step + 1, steps)
                await asyncio.sleep(seconds)
        elif word in ("@crash", "@crash_once", "@exit"):
            if self._ends(word, next(words)):
                await asyncio.sleep(10)
        elif word == "@endless":
            while True:
                yield TextDelta("x")
        elif word == "@hang":
            self.note("hangs")
            while True:
                pass
        elif word == "@ignore":
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        elif word == "@together":
            for number in range(int(next(words))):
                yield TextDelta(str(number))
        elif word in ERRORS:
            raise ERRORS[word]
        elif word != "@unended":
            word = json.dumps(dict(request_metadata())) if word == "@metadata" else word
            yield TextDelta(word, (TokenLogprob(word.encode(), 7, -0.5, (TokenLogprob(b"o", 8, -1.5),)),))

    def _ends(self, word: str, argument: str) -> bool:
        """End the process, unless it is to end once and has."""
        if word == "@crash_once":
            if Path(argument).exists():
                return False
            Path(argument).touch()
            os.kill(os.getpid(), signal.SIGKILL)
            return True
        self._last_words()
        if word == "@exit":
            os._exit(int(argument))
        os.kill(os.getpid(), signal.Signals[argument])
        return True

    def _last_words(self) -> None:
        for line in ("first words", "", "last words"):
            say(line)

    async def tokenize(self, text: str, /, *, add_special: bool, parse_special: bool) -> list[int]:
        self.note(f"tokenize {json.dumps(dict(request_metadata()))}")
        return [1] * add_special + [ord(letter) for letter in text] + [2] * parse_special

    async def detokenize(self, tokens: Sequence[int], /, *, special: bool) -> list[bytes]:
        if any(token < 0 for token in tokens):
            raise InvalidRequestError("no such token")
        return [b"" if token < 3 and not special else chr(token).encode() for token in tokens]

    async def embed(self, inputs: Sequence[str | Sequence[int]], /, *, raw: bool = False) -> list[Embedding]:
        self.note(f"embed {json.dumps(dict(request_metadata()))}")
        if "@long" in inputs:
            raise PromptTooLongError(9, 4)
        if "@crash" in inputs:
            os.kill(os.getpid(), signal.SIGKILL)
        if "@raise" in inputs:
            raise ValueError("é" * 5000)
        return [Embedding((float(len(each)), 0.5, float(raw)), len(each)) for each in inputs]

    async def aclose(self) -> None:
        self.note("closed")


ERRORS = {
    "@refuse": InvalidRequestError("not this"),
    "@long": PromptTooLongError(9, 4),
    "@unsupported": UnsupportedError("cannot"),
    "@raise": ValueError("oh dear"),
}


class ScriptedBackend(Backend):
    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        model = Scripted(spec)
        model.note(f"load {os.getpid()} {spec.context_length}")
        model.note("loading")
        adapters = [each.removeprefix("@") for each in spec.adapter_paths if each.startswith("@")]
        match spec.backend_options.get("load", *adapters):
            case "refuse":
                raise InvalidRequestError("no model of mine")
            case "memory":
                raise MemoryError("no room")
            case "memory above 4096" if spec.context_length > 4096:
                raise MemoryError("no room")
            case "raise":
                raise ModuleNotFoundError("No module named 'heavy'")
            case "exit":
                say("cannot open the file")
                os._exit(3)
            case "crash":
                os.kill(os.getpid(), signal.SIGILL)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill once" if model.noted("loading") == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "slow":
                for step in range(10):
                    report(step / 10)
                    await asyncio.sleep(0.15)
            case "chatter":
                for step in range(10):
                    say(f"loading {step}")
                    await asyncio.sleep(0.15)
            case "stall":
                say("stuck")
                await model.resumed(60)
        report(1.0)
        return model
