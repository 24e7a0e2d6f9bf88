"""Rounds: streams begin, something is killed, every client is judged, and what was killed is started again.

Theory. One thing is broken per round, so each error has one cause and its delay is known. Streams are judged by the
hosts of their model, as ListLoadedModels had them before: if all of them are broken, the stream must end with an error
within ERROR_SECONDS; if none is, it must go on; if some are, either is right. A stream that does neither hangs. Short
requests go on all the time. One that fails must do so within ERROR_SECONDS of its begin or of what was broken. While
other nodes can serve it, it may fail only if it has sent a token; else it runs once more, unseen by its client. The
round ends when every model answers again and no host runs that the server does not know.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import grpc.aio
from tools.soak.kills.clients import FACES, AnswerError, Outcome, Prober, Stream, Ways, ask
from tools.soak.kills.cluster import Broken, Cluster
from tools.soak.kills.programs import hosts

from puna_client.v1 import models_pb2, models_pb2_grpc, server_pb2, server_pb2_grpc

ERROR_SECONDS: Final = 3.0
"""How long an error may take."""
ANSWER_SECONDS: Final = 60.0
"""How long an answer may take, with the load of its model."""
RECOVERY_SECONDS: Final = 120.0
NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{12,}\b|\d+")
CLEAR: Final = re.compile(
    r"cannot be reached|has not answered for|does not answer|has terminated|connection to it broke|not used any more"
    r"|SIGKILL|exit status \d+ \(on|shutting down|serves another core|Ray"
)
"""Texts that tell a client what has happened."""
CONNECTION: Final = re.compile(r"REST connection: |gRPC UNAVAILABLE: ")
"""Errors of a client whose server was killed."""


@dataclass(slots=True)
class Verdict:
    """What has happened so far."""

    faults: list[str] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """How often each text was seen; numbers are "N"."""
    delays: dict[str, list[float]] = field(default_factory=dict)
    """Seconds from a kill to the error of each stream, by the kind of what was killed."""
    kills: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    slowest: float = 0.0
    """Seconds of the slowest short request that was answered."""
    slowest_text: str = ""
    """What that request was, and what was broken when."""


class Rounds:
    """Breaks a cluster, round by round."""

    def __init__(
        self, cluster: Cluster, ways: Ways, models: tuple[str, ...], draw: random.Random, slack: float = 1.0
    ) -> None:
        """`slack` is how many seconds more than ERROR_SECONDS a busy machine gets."""
        self._cluster = cluster
        self._ways = ways
        self._models = models
        self._draw = draw
        self._bound = ERROR_SECONDS + slack
        self.verdict = Verdict()
        self._round = 0
        self._what = "start"

    async def play(self, kinds: tuple[str, ...], streams: int, probers: int) -> Verdict:
        """Play a round of each kind in turn, with this many clients."""
        probing = [Prober(self._ways, self._models, random.Random(self._draw.random())) for _ in range(probers)]
        await self._recover()
        tasks = [asyncio.create_task(each.probe()) for each in probing]
        try:
            for kind in kinds:
                self._round += 1
                began, known = time.monotonic(), len(self.verdict.faults)
                await self._play(kind, streams, probing)
                # A long run tells what it does, also one that is broken off.
                took = time.monotonic() - began
                new = Counter(NUMBERS.sub("N", each) for each in self.verdict.faults[known:])
                told = [f"{count}x {text}" for text, count in new.items()]
                print(f"{self._what}: {took:.1f} s", *told, sep="\n  ", flush=True)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.wait(tasks)
        for each in tasks:
            if not each.cancelled():
                self._fault(f"a prober ended: {each.exception()!r}")
        return self.verdict

    async def _play(self, kind: str, number: int, probers: list[Prober]) -> None:
        models = [self._models[each % len(self._models)] for each in range(number)]
        streams = [Stream(self._ways, model, each % len(FACES)) for each, model in enumerate(models)]
        await until(lambda: all(each.last_at or each.ended_at for each in streams), ANSWER_SECONDS)
        for each in streams:
            if not each.last_at or each.ended_at:
                self._fault(f"{each.name} has not begun on a whole cluster: {each.error}")
        places = await self._places()
        broken = await self._cluster.break_one(kind, self._draw)
        self._what = f"round {self._round}, {broken.text}"
        self.verdict.kills[kind] += 1
        await until(
            lambda: all(each.ended_at or each.last_at > broken.at + broken.settle_seconds for each in streams),
            self._bound + broken.settle_seconds,
        )
        for each in streams:
            self._judge(each, places.get(each.model, set()), broken, kind)
        await self._cluster.mend()
        for each in streams:
            await each.hang_up()
        await self._recover()
        for prober in probers:
            done, prober.outcomes = prober.outcomes, []
            for outcome in done:
                self._judge_short(outcome, broken)
            if time.monotonic() - prober.waiting_since > ANSWER_SECONDS + RECOVERY_SECONDS:
                self._fault("a short request hangs")

    def _judge(self, stream: Stream, places: set[int], broken: Broken, kind: str) -> None:
        affected = broken.core or (bool(places) and places <= broken.hosts)
        safe = not broken.core and not places & (broken.hosts | broken.maybe)
        if not stream.exact:
            self._fault(f"{stream.name} lost a piece: {stream.text[-200:]}")
        if not stream.ended_at:
            if stream.last_at <= broken.at + broken.settle_seconds:
                self._fault(f"{stream.name} hangs")
            elif affected:
                self._fault(f"{stream.name} goes on without its hosts")
            return
        if not stream.error:
            self._fault(f"{stream.name} ended as if it were complete: {stream.text[-200:]}")
            return
        delay = stream.ended_at - broken.at
        self.verdict.delays.setdefault(kind, []).append(delay)
        self._note(stream.error, broken, stream.name)
        if safe:
            self._fault(f"{stream.name} ended although its hosts run: {stream.error}")
        if delay > self._bound + (broken.settle_seconds if broken.maybe else 0.0):
            self._fault(f"{stream.name} got its error after {delay:.1f} s: {stream.error}")

    def _judge_short(self, outcome: Outcome, broken: Broken) -> None:
        took = outcome.ended_at - outcome.began_at
        if not outcome.error:
            self.verdict.answers += 1
            if took > self.verdict.slowest:
                began = outcome.began_at - broken.at
                self.verdict.slowest = took
                self.verdict.slowest_text = f"{outcome.name}, begun {began:+.1f} s from the kill of {self._what}"
            if outcome.text != "ab":
                self._fault(f"{outcome.name} has the answer {outcome.text!r}")
            if took > ANSWER_SECONDS:
                self._fault(f"{outcome.name} took {took:.1f} s")
            return
        self._note(outcome.error, broken, outcome.name)
        # Over REST, an error right behind the first token replaces the whole answer.
        if broken.retried and not outcome.text and outcome.error.startswith("gRPC"):
            self._fault(f"{outcome.name} failed before its first token: {outcome.error}")
        if outcome.ended_at < broken.at:
            self._fault(f"{outcome.name} failed on a whole cluster: {outcome.error}")
        delay = outcome.ended_at - max(outcome.began_at, broken.at)
        if delay > self._bound:
            self._fault(f"{outcome.name} got its error after {delay:.1f} s: {outcome.error}")

    def _note(self, error: str, broken: Broken, name: str) -> None:
        self.verdict.errors[NUMBERS.sub("N", error)[:200]] += 1
        if not (CLEAR.search(error) or (broken.core and CONNECTION.match(error))):
            self._fault(f"{name} got an error that explains nothing: {error}")

    async def _places(self) -> dict[str, set[int]]:
        """Return the process ids of the hosts of each model."""
        stub = models_pb2_grpc.ModelsServiceStub(self._ways.channel)
        answer = await stub.ListLoadedModels(models_pb2.ListLoadedModelsRequest())
        return {
            each.model.name.removesuffix(":latest"): {replica.process_id for replica in each.replicas}
            for each in answer.models
        }

    async def _recover(self) -> None:
        """Wait until each model answers, no stream is left, and no host runs that the server does not know."""
        for model in self._models:
            if not await until_true(lambda model=model: self._answers(model), RECOVERY_SECONDS):
                self._fault(f"{model} does not answer again: {(await ask(self._ways, model, 0)).error}")
        if not await until_true(self._idle, RECOVERY_SECONDS):
            self._fault("the server still lists requests of clients that have left")
        if not await until_true(self._tidy, RECOVERY_SECONDS):
            known = set().union(*(await self._places()).values())
            self._fault(f"hosts {sorted(hosts(self._cluster.run) - known)} run, of which the server knows nothing")

    async def _answers(self, model: str) -> bool:
        return (await ask(self._ways, model, 0)).text == "ab"

    async def _idle(self) -> bool:
        stub = server_pb2_grpc.ServerServiceStub(self._ways.channel)
        listed = await stub.ListRequests(server_pb2.ListRequestsRequest(page_size=1000))
        # Short requests come and go; a stream has more pieces than they have.
        return not any(each.output_tokens > len("ab") for each in listed.requests)

    async def _tidy(self) -> bool:
        known = set().union(*(await self._places()).values())
        return hosts(self._cluster.run) <= known

    def _fault(self, text: str) -> None:
        self.verdict.faults.append(f"{self._what}: {text}")


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; return whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def until_true(condition: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Ask the server again and again until a condition holds; return whether it did in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        # The server may not be back yet.
        with suppress(grpc.aio.AioRpcError, AnswerError):
            if await condition():
                return True
        await asyncio.sleep(0.1)
    return False
