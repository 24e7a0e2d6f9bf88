"""The replicas of one model: hosts that have it loaded, and which of them serves a request.

Theory. A model whose settings allow more than one replica has one entry in the table of loaded models, as any other,
and a Replicas object that owns its hosts. A request chooses a replica when it begins (`puna.runtime.routing`) and waits
for a slot of this one. It chooses anew when its replica is lost, and when a slot elsewhere has become free
(`rebalance`). What the choice depends on is learned as requests run: what each replica has yet to evaluate, which
prompts it has evaluated, and what a token and an answer cost.

A model of one replica has no such object, so it pays nothing for all this.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from puna.backend import Finish, LoadedModel, SequenceRequest, request_metadata
from puna.backend.metadata import SESSION
from puna.runtime import model_folders
from puna.runtime.admission import ConcurrencyLimiter
from puna.runtime.prompt_memory import BLOCK_CHARACTERS, BLOCK_TOKENS, Blocks, PromptMemory
from puna.runtime.requirements import ReplicaEntry
from puna.runtime.routing import Costs, LeastLoadedRouting, Policy, PrefixRouting, RoutedRequest, policies
from puna.traceback_summary import summarize

log = logging.getLogger(__name__)

FIRST_COSTS: Final = Costs(prefill_seconds=0.001, busy_prefill_seconds=0.002, answer_seconds=5.0)
"""The costs that are assumed for a model until it has answered."""
LEARNING: Final = 0.1
"""The weight of the last answer in the means of costs."""
LEAST_PREFILL: Final = 16
"""Prompt tokens of the shortest prefill whose time says something about the cost of a token."""
UNKNOWN_CACHE_TOKENS: Final = 32_768
"""Tokens of a cache whose size its backend does not tell."""


@dataclass(eq=False, slots=True, kw_only=True)
class Replica:
    """A host that has the model loaded."""

    number: int = 1
    model: LoadedModel
    limiter: ConcurrencyLimiter
    pid: int = 0
    """Process id of the host on this machine; 0 if it runs elsewhere, or has none."""
    node: str = ""
    """Address of the node on which the host runs; empty: this machine."""
    process_id: int = 0
    """Process id of the host on the machine on which it runs."""
    folder: str = ""
    """The folder of the model's files, which goes with it; empty if it has none."""
    file_bytes: int = 0
    """The size of the files, which stands for that of the model if the backend does not tell."""
    loaded_at_ns: int = field(default_factory=time.time_ns)
    memory: PromptMemory = field(default_factory=lambda: PromptMemory(1))
    requests: int = 0
    """Sequences that it was given and that have not ended."""
    prefill_tokens: int = 0
    """Prompt tokens of these that it has yet to evaluate."""
    calls: int = 0
    """Embeddings and other calls without a slot that are under way."""
    idle_since: float = field(default_factory=time.monotonic)
    lost: bool = False
    """True once the host has died."""
    inherits: bool = False
    """True if it counts the weights that another model of the host has loaded and left behind."""

    @property
    def slots(self) -> int:
        """Number of sequences that it runs at once."""
        return self.limiter.slots

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        return (self.model.facts.size_bytes or self.file_bytes) + self.inherited_bytes

    @property
    def vram_bytes(self) -> int:
        """The part of that memory that is on GPUs."""
        facts = self.model.facts
        return facts.vram_bytes + (facts.shared_vram_bytes if self.inherits else 0)

    @property
    def inherited_bytes(self) -> int:
        """The part of that memory that another model of the host had loaded."""
        return self.model.facts.shared_bytes if self.inherits else 0

    def entry(self, active: int | None = None) -> ReplicaEntry:
        """Return its row in the list of loaded models. `active`: the requests that do not wait, if known better."""
        facts, queued = self.model.facts, self.limiter.queued
        return ReplicaEntry(
            number=self.number,
            node=self.node,
            process_id=self.process_id or self.pid,
            slots=self.slots,
            active=self.requests + self.calls - queued if active is None else active,
            queued=queued,
            size_bytes=self.size_bytes,
            vram_bytes=self.vram_bytes,
            kv_cache_tokens=facts.kv_cache_tokens,
            kv_cache_type=facts.kv_cache_type,
            kv_cache_usage=self.model.kv_cache_usage(),
            loaded_at_ns=self.loaded_at_ns,
        )

    async def aclose(self) -> None:
        """Free the model, and remove the folder of its files once no host reads it any more."""
        try:
            await self.model.aclose()
        finally:
            if self.folder:
                await asyncio.to_thread(model_folders.remove, self.folder)


class Placement:
    """A sequence on a replica: what is counted for it, from the choice of the replica to the end."""

    def __init__(self, owner: "Replicas", replica: Replica, prefill: int) -> None:
        """`prefill` is about how many tokens the replica has to evaluate."""
        self._owner = owner
        self.replica = replica
        self._prefill = prefill
        self._beside_others = False
        replica.requests += 1
        replica.prefill_tokens += prefill

    def begin(self) -> None:
        """Note that the sequence has got a slot."""
        self._beside_others = self.replica.requests - self.replica.limiter.queued > 1

    def first_token(self) -> None:
        """Note the end of the prefill."""
        self.replica.prefill_tokens -= self._prefill
        self._prefill = 0

    def finish(self, request: SequenceRequest, finish: Finish) -> None:
        """Learn from the counts of an answer."""
        self._owner.learn(request, finish, beside_others=self._beside_others)

    def end(self) -> None:
        """Note that the sequence has ended, in whatever way."""
        self.first_token()
        replica = self.replica
        replica.requests -= 1
        replica.idle_since = time.monotonic()
        # Nothing waits here for the slot that has become free.
        if not (replica.limiter.queued or replica.lost):
            self._owner.rebalance()


class Replicas:
    """The replicas of one model."""

    def __init__(
        self, name: str, first: Replica, routing: Callable[[], str], *, max_blocks: int, seed: int | None = None
    ) -> None:
        """`name` is the model's, for the log. `routing` returns the name of the policy; a reload may change its answer.

        `max_blocks` is how many blocks of prompts are remembered for each replica.
        """
        self.name = name
        self.members: list[Replica] = []
        """The replicas that serve, in the order of their starts."""
        self.starting = 0
        """Replicas that have not loaded the model yet."""
        self.crowded = asyncio.Event()
        """Set when a request has to wait for a slot; see ReplicaScaler."""
        self._routing = routing
        self._max_blocks = max_blocks
        self._numbers = 0
        self._tokens_per_character = BLOCK_TOKENS / BLOCK_CHARACTERS
        seed = random.randrange(2**32) if seed is None else seed
        self._costs = FIRST_COSTS
        self._policies: Mapping[str, Policy] = policies(seed, FIRST_COSTS)
        self._without_session = LeastLoadedRouting(seed)
        self._closing: set[asyncio.Task[None]] = set()
        self.add(first)

    @property
    def routing(self) -> str:
        """The name of the policy."""
        return self._routing()

    @property
    def costs(self) -> Costs:
        """The costs as they have been learned."""
        return self._costs

    @property
    def slots(self) -> int:
        """Number of sequences that run at once on all replicas."""
        return sum(each.slots for each in self.members)

    @property
    def queued(self) -> int:
        """Number of sequences that wait for a slot."""
        return sum(each.limiter.queued for each in self.members)

    def add(self, replica: Replica) -> None:
        """Let a replica serve, and let waiting requests have its slots."""
        self._numbers += 1
        replica.number = self._numbers
        facts = replica.model.facts
        tokens = facts.kv_cache_tokens or facts.parallel * facts.context_length or UNKNOWN_CACHE_TOKENS
        replica.memory = PromptMemory(min(tokens // BLOCK_TOKENS, self._max_blocks))
        self.members.append(replica)
        self.rebalance()

    def lose(self, replica: Replica) -> bool:
        """Take away a replica whose host has died; return whether others are left."""
        replica.lost = True
        self.crowded.set()
        if replica not in self.members:
            return True
        if len(self.members) == 1:
            return False
        log.warning("%s: replica %d is lost, %d are left", self.name, replica.number, len(self.members) - 1)
        self.remove(replica)
        return True

    def remove(self, replica: Replica) -> None:
        """Take away a replica, and free it in the background. Requests that wait for it choose another one."""
        if replica not in self.members:
            return
        self.members.remove(replica)
        replica.limiter.dismiss(replica.limiter.queued)
        task = asyncio.create_task(replica.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def place(self, request: SequenceRequest, blocks: Blocks, avoid: str = "") -> Placement:
        """Choose the replica for a sequence, and count the sequence there; see `place_call` for `avoid`."""
        members, chosen = self._beyond(avoid), 0
        length = len(request.prompt) or len(blocks) * BLOCK_CHARACTERS
        text = isinstance(request.prompt, str)
        tokens = max(int(length * self._tokens_per_character) if text else length, 1)
        block = BLOCK_CHARACTERS * self._tokens_per_character if text else BLOCK_TOKENS
        matches = [each.memory.match(blocks) for each in members]
        if len(members) > 1:
            chosen = self._choose(tokens, [int(each * block) for each in matches], members)
        replica = members[chosen]
        replica.memory.use(blocks)
        placement = Placement(self, replica, max(tokens - int(matches[chosen] * block), 1))
        if replica.requests > replica.slots:
            self.crowded.set()
        return placement

    def _beyond(self, avoid: str) -> Sequence[Replica]:
        """Return the replicas on other nodes than one; all if there are no others."""
        if not avoid:
            return self.members
        return [each for each in self.members if each.node != avoid] or self.members

    def _choose(self, tokens: int, cached: list[int], members: Sequence[Replica]) -> int:
        session = request_metadata().get(SESSION, "")
        holders = sorted(((index, held) for index, held in enumerate(cached) if held), key=lambda pair: -pair[1])
        routed = RoutedRequest(tokens, hash(session), tuple(holders))
        routing = self.routing
        policy = self._policies[routing] if session or routing != "session" else self._without_session
        return policy.choose(routed, members)

    def place_call(self, avoid: str = "") -> Replica:
        """Choose the replica for a call without a slot.

        `avoid` is a node on which a host has just died. If the node itself is gone, so are its other hosts, of which
        the core may hear a moment later. They are chosen only if there are no others.
        """
        return min(self._beyond(avoid), key=lambda each: (each.calls + each.requests) / each.slots)

    def rebalance(self) -> None:
        """Let as many requests choose anew as slots are free at other replicas, the last of the longest queue first."""
        if len(self.members) == 1:
            return
        free = sum(max(each.slots - each.requests, 0) for each in self.members if not each.limiter.queued)
        while free and (crowded := max(self.members, key=lambda each: each.limiter.queued)).limiter.queued:
            crowded.limiter.dismiss(1)
            free -= 1  # a request that chooses the same replica again waits for the next slot

    def learn(self, request: SequenceRequest, finish: Finish, *, beside_others: bool) -> None:
        """Take the counts of an answer into the means."""
        if isinstance(request.prompt, str) and len(request.prompt) >= BLOCK_CHARACTERS and not request.media:
            share = finish.prompt_tokens / len(request.prompt)
            if share:
                self._tokens_per_character = _mean(self._tokens_per_character, share)
        costs = self._costs
        evaluated = finish.prompt_tokens - finish.cached_prompt_tokens
        if evaluated >= LEAST_PREFILL and finish.prompt_eval_ns:
            seconds = finish.prompt_eval_ns / evaluated / 1e9
            if costs is FIRST_COSTS:
                costs = replace(costs, prefill_seconds=seconds, busy_prefill_seconds=2 * seconds)
            elif beside_others:
                costs = replace(costs, busy_prefill_seconds=_mean(costs.busy_prefill_seconds, seconds))
            else:
                costs = replace(costs, prefill_seconds=_mean(costs.prefill_seconds, seconds))
        if finish.output_tokens:
            costs = replace(costs, answer_seconds=_mean(costs.answer_seconds, finish.eval_ns / 1e9))
        self._costs = costs
        prefix = self._policies["prefix"]
        assert isinstance(prefix, PrefixRouting)
        prefix.costs = costs

    def longest_wait(self) -> float:
        """Return how many seconds the first requests of the queues have waited; 0 if none waits."""
        return max((each.limiter.longest_wait() for each in self.members), default=0.0)

    def idlest(self) -> Replica | None:
        """Return the replica that has been idle for the longest time; None if all are busy."""
        idle = [each for each in self.members if not (each.requests or each.calls)]
        return min(idle, key=lambda each: each.idle_since, default=None)

    async def aclose(self) -> None:
        """Free all replicas."""
        await asyncio.gather(*(each.aclose() for each in self.members), *self._closing, return_exceptions=True)

    def _closed(self, task: "asyncio.Task[None]") -> None:
        self._closing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: a replica could not be freed: %s", self.name, summarize(error))


def _mean(mean: float, value: float) -> float:
    return mean + LEARNING * (value - mean)
