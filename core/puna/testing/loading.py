"""Contract tests of loading and freeing a model, and of its facts."""

import asyncio
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import grpc

from puna.backend import Backend, BackendError, InvalidRequestError, LoadedModel, ModelFacts, ModelSpec
from puna.testing import hosts
from puna.testing.answers import collect, refusal
from puna.testing.harness import ContractBase

DESCRIPTORS = Path("/proc/self/fd")
CANCEL_SHARES = (0.0, 0.25, 0.5)
"""Parts of a load's time after which it is cancelled."""
QUIET_SECONDS = 0.3


class LoadingTests(ContractBase):
    """Progress, refusals, cancellation, freeing, facts."""

    silent_seconds = 5.0
    """How long a load may give no sign of life: neither a report nor a turn of the event loop."""
    _owners: ClassVar[dict[int, Backend]] = {}
    """The backends of the models that `load` has loaded."""

    def test_loading_tells_how_far_it_is(self) -> None:
        """Progress goes from 0 to 1 and never backwards, and a long load gives signs of life.

        If it fails: call `report` with fractions of the whole load. A load that keeps the event loop busy must call it
        every few seconds, from any thread.
        """
        fractions: list[float] = []
        signs = [time.monotonic()]
        longest = 0.0

        def sign() -> None:
            nonlocal longest
            longest = max(longest, time.monotonic() - signs[-1])
            signs.append(time.monotonic())

        def report(fraction: float) -> None:
            fractions.append(fraction)
            sign()

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.01)
                sign()

        async def test() -> None:
            ticking = asyncio.create_task(tick())
            await asyncio.sleep(0)
            signs.append(time.monotonic())
            async with self.reported(report):
                sign()
                ticking.cancel()

        self.run_alone(test)
        assert all(0 <= fraction <= 1 for fraction in fractions), f"fractions beyond 0 and 1: {fractions}"
        assert fractions == sorted(fractions), f"the progress went backwards: {fractions}"
        assert longest < self.silent_seconds, f"the load gave no sign of life for {longest:.1f} s"

    @asynccontextmanager
    async def reported(self, report: Callable[[float], None]) -> AsyncIterator[LoadedModel]:
        """Load the model with a report of the progress."""
        if self.through_host:
            async with hosts.hosted(self.installed(), self.spec(), report) as model:
                yield model
        else:
            model = await self.load(self.spec(), report)
            yield model
            await self.free(model)

    async def load(self, spec: ModelSpec, report: Callable[[float], None] = lambda _: None) -> LoadedModel:
        """Load a model. The caller frees it with `free`."""
        assert self.backend_class is not None, "set backend_class"
        backend = self.backend_class()
        loaded = False
        try:
            model = await backend.load(spec, report)
            loaded = True
        finally:
            if not loaded:
                await backend.aclose()
        self._owners[id(model)] = backend
        return model

    async def free(self, model: LoadedModel) -> None:
        """Free a model and its backend."""
        await model.aclose()
        await self._owners.pop(id(model)).aclose()

    def test_a_file_that_is_not_there_is_refused(self) -> None:
        """A missing file raises the contract's error, whose text the user sees.

        If it fails: catch OSError and what the library raises, and raise InvalidRequestError with a text that says why.
        """
        if self.spec().path:
            missing = replace(self.spec(), path="/no/such/model", files={"model": "/no/such/model"})
            self.run_alone(lambda: self.check_refused(missing))

    def test_a_file_that_is_no_model_is_refused(self) -> None:
        """A file of any other content raises the contract's error, if the backend looks at the content at all.

        If it fails: check the header of the file before you hand it to a library, and raise InvalidRequestError.
        """
        if not self.spec().path:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in (("empty", b""), ("text", b"This is no model.\n" * 100), ("zeros", bytes(4096))):
                path = Path(folder) / name
                path.write_bytes(content)
                spec = replace(self.spec(), path=str(path), files={name: str(path)})
                self.run_alone(lambda spec=spec: self.check_odd_file(spec))  # type: ignore[misc]

    async def check_refused(self, spec: ModelSpec) -> None:
        """Check that a load is refused with a text for the user."""
        if self.through_host:
            await self.check_status(spec, grpc.StatusCode.INVALID_ARGUMENT)
            return
        error = await refusal(self.load(spec))
        assert isinstance(error, InvalidRequestError), f"load raised {error!r}"
        assert str(error), "the error has no text"

    async def check_odd_file(self, spec: ModelSpec) -> None:
        """Check that a load of an odd file either works or is refused."""
        if self.through_host:
            await self.check_status(spec, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK)
            return
        try:
            model = await self.load(spec)
        except InvalidRequestError:
            return
        await self.free(model)

    async def check_status(self, spec: ModelSpec, *codes: grpc.StatusCode) -> None:
        """Check the status with which a host answers Load."""
        async with hosts.bare_host(self.installed()) as (_, stub):
            code, text = await hosts.load_status(stub, self.installed(), spec)
            assert code in codes, f"Load ended with {code.name}: {text}"
            assert text or code is grpc.StatusCode.OK, "the error has no text"

    def test_a_host_keeps_to_the_wire_contract(self) -> None:
        """A host answers Describe, refuses calls before Load and a second Load, and ends soon after SIGTERM.

        If it fails: see the comments of `proto/puna/backend/v1/backend.proto`. Python backends have all of this from
        `python -m puna.host`; then look for code that blocks the event loop or catches SystemExit.
        """
        plugin = self.plugin()
        if plugin is not None and not plugin.error:
            self.run_alone(lambda: hosts.check_protocol(plugin, self.spec()))

    def test_a_host_gives_the_same_answer(self) -> None:
        """The answer through a host is the one of the class in this process.

        If it fails: the backend depends on something that a host does not have: the working folder, an environment
        variable (`host.environment` in the manifest), a module that is not on its path.
        """
        plugin = self.plugin()
        if self.through_host or plugin is None or plugin.error:
            return

        async def test() -> None:
            async with self.loaded() as alone, hosts.hosted(plugin, self.spec()) as model:
                assert _whole(model.facts) == _whole(alone.facts)
                if alone.facts.generates:
                    assert (await collect(model, self.request())).text == (await collect(alone, self.request())).text

        self.run_alone(test)

    def test_models_of_the_same_weights_share_a_host(self) -> None:
        """Two models of the same weights run in one host, and one of them answers as before once the other is freed.

        If it fails: the manifest says `host.shares_weights`, so `load` is called for each model on the same Backend
        object. Free what models share with the last of them.
        """
        plugin = self.plugin()
        if self.through_host or plugin is None or plugin.error or not plugin.usable.host.shares_weights:
            return

        async def test() -> None:
            async with hosts.hosted_together(plugin, self.spec()) as (first, second):
                assert (first.pid, first.process_id) == (second.pid, second.process_id)
                texts = [await self._answer(each) for each in (first, second)]
                assert texts[0] == texts[1]
                await first.aclose()
                assert await self._answer(second) == texts[1]

        self.run_alone(test)

    async def _answer(self, model: LoadedModel) -> str:
        return (await collect(model, self.request())).text if model.facts.generates else ""

    def test_a_load_can_be_cancelled(self) -> None:
        """A cancelled load ends soon and leaves nothing: no thread, no open file, no work.

        If it fails: look at a flag between the steps of a load that runs in a thread, set it in `finally`, wait for the
        thread, and free what was loaded.
        """
        if self.through_host:
            # The server ends the process.
            return

        async def whole() -> None:
            begun = time.monotonic()
            model = await self.load(self.spec())
            taken.append(time.monotonic() - begun)
            await self.free(model)

        async def cancelled(share: float) -> None:
            task = asyncio.ensure_future(self.load(self.spec()))
            await asyncio.sleep(share * min(taken))
            task.cancel()
            async with asyncio.timeout(self.stop_seconds + 2 * max(taken)):
                done = await asyncio.gather(task, return_exceptions=True)
            if isinstance(done[0], LoadedModel):
                # It was loaded before the cancellation arrived.
                await self.free(done[0])

        taken: list[float] = []
        for _ in range(2):
            self.run_alone(whole)
        before = self.resources()
        for share in CANCEL_SHARES:
            # Ending the loop waits for the threads of its executor, so work that goes on there delays it.
            begun = time.monotonic()
            self.run_alone(lambda share=share: cancelled(share))  # type: ignore[misc]
            assert time.monotonic() - begun < self.stop_seconds + 2 * max(taken), "the load went on after the cancel"
        self.check_released(before)
        # What was cancelled can be loaded again.
        self.run_alone(whole)

    def resources(self) -> dict[str, int]:
        """Count what a model in this process could leave behind."""
        files = len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0
        return {"threads": threading.active_count(), "open files": files}

    def check_released(self, before: dict[str, int]) -> None:
        """Check that nothing is left of a model, soon, and that nothing works on."""
        end = time.monotonic() + self.stop_seconds
        while any(after > before[name] for name, after in self.resources().items()):
            left = {name: after - before[name] for name, after in self.resources().items()}
            assert time.monotonic() < end, f"left behind after the model was freed or its load cancelled: {left}"
            time.sleep(0.02)
        spent = []
        for _ in range(3):
            used = time.process_time()
            time.sleep(QUIET_SECONDS / 3)
            spent.append(time.process_time() - used)
        assert min(spent) < QUIET_SECONDS / 6, f"{min(spent):.3f} s of processor time although nothing is loaded"

    def test_freeing_a_model_leaves_nothing(self) -> None:
        """`aclose` ends all threads and tasks of a model and closes its files, also after a sequence was cancelled.

        If it fails: stop the threads of the engine in `aclose`, wait for them, and release the library's objects.
        """
        if self.through_host:
            return

        async def whole() -> None:
            tasks = asyncio.all_tasks()
            model = await self.load(self.spec())
            if model.facts.generates:
                await collect(model, self.request(max_tokens=2))
                running = asyncio.ensure_future(collect(model, self.request(max_tokens=10_000)))
                await asyncio.sleep(0.01)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            async with asyncio.timeout(self.stop_seconds):
                await self.free(model)
            left = asyncio.all_tasks() - tasks
            assert not left, f"tasks are left after aclose: {left}"

        self.run_alone(whole)
        before = self.resources()
        for _ in range(2):
            self.run_alone(whole)
        self.check_released(before)

    def test_a_freed_model_refuses_calls(self) -> None:
        """A second `aclose` does nothing, and any other call raises BackendError, if it needs what was freed.

        If it fails: set a flag in `aclose`, and have every method look at it before it uses the library.
        """
        if self.through_host:
            return

        async def test() -> None:
            model = await self.load(self.spec())
            await model.aclose()
            ended = await asyncio.gather(
                model.aclose(),
                collect(model, self.request(max_tokens=2)),
                model.tokenize(self.prompt, add_special=True, parse_special=True),
                model.detokenize([0], special=True),
                model.embed([self.prompt]),
                model.rerank(self.prompt, [self.prompt]),
                return_exceptions=True,
            )
            failed = [each for each in ended if isinstance(each, BaseException) and not isinstance(each, BackendError)]
            assert not failed, f"calls on a freed model failed: {failed}"
            assert model.step() is None, "a freed model has no work"
            model.kv_cache_usage()
            await self.free(model)

        self.run_alone(test)

    def test_two_models_are_independent(self) -> None:
        """A second model beside the first changes nothing, and freeing it leaves the first one working.

        If it fails: keep all state in the LoadedModel, none in the module or the Backend.
        """

        async def test() -> None:
            async with self.loaded() as one:
                if not one.facts.generates:
                    return
                alone = (await collect(one, self.request())).text
                async with self.loaded() as other:
                    texts = await asyncio.gather(*(collect(each, self.request()) for each in (one, other, one)))
                    assert {answer.text for answer in texts} == {alone}
                assert (await collect(one, self.request())).text == alone

        self.run_alone(test)

    # ---- Facts ----

    def test_the_facts_make_sense(self) -> None:
        """Lengths and sizes are in their ranges, and the facts do not change.

        If it fails: `context_length` is what was asked for, cut to what the model can, or 0 if it is unknown;
        `size_bytes` includes `vram_bytes`.
        """

        async def test(model: LoadedModel) -> None:
            facts = model.facts
            assert 0 <= facts.context_length <= self.spec().context_length, "the context is longer than was asked for"
            assert facts.parallel >= 1
            assert facts.size_bytes >= facts.vram_bytes >= 0
            assert facts.embedding_length >= -1
            assert facts.embedding_tokens >= 0
            if facts.generates:
                await collect(model, self.request(max_tokens=1))
            assert model.facts == facts, "the facts changed"

        async def undecided() -> None:
            async with self.loaded(parallel=0) as model:
                assert model.facts.parallel >= 1, "with spec.parallel = 0 the backend decides how many sequences run"

        self.run_any(test)
        self.run_alone(undecided)

    def test_the_facts_of_the_vocabulary_are_true(self) -> None:
        """BOS and EOS have the ids and texts that the facts name, and are added as the facts say.

        If it fails: read ids, texts and flags from the model's own tokenizer; -1 and "" mean that there is no such
        token.
        """

        async def test(model: LoadedModel) -> None:
            facts = model.facts
            if not facts.tokenizer:
                return
            plain = await model.tokenize(self.prompt, add_special=False, parse_special=False)
            special = await model.tokenize(self.prompt, add_special=True, parse_special=False)
            bos, eos = [facts.bos_id] * facts.adds_bos, [facts.eos_id] * facts.adds_eos
            assert special == [*bos, *plain, *eos], f"{special} is not {plain} with BOS {bos} and EOS {eos}"
            for token, text in ((facts.bos_id, facts.bos_text), (facts.eos_id, facts.eos_text)):
                assert (token >= 0) or not text, f"{text!r} has no id"
                if token >= 0:
                    assert await model.detokenize([token], special=True) == [text.encode()], f"token {token}: {text!r}"
                    assert await model.detokenize([token], special=False) == [b""], f"{text!r} is not special"

        self.run_any(test)


def _whole(facts: ModelFacts) -> ModelFacts:
    """Return facts with the weights counted, although another model has loaded them."""
    size, vram = facts.size_bytes + facts.shared_bytes, facts.vram_bytes + facts.shared_vram_bytes
    return replace(facts, size_bytes=size, vram_bytes=vram, shared_bytes=0, shared_vram_bytes=0)
