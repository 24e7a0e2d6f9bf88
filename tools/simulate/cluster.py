"""A cluster in virtual time: sessions arrive, a policy chooses replicas, and replicas come and go.

The events lie in a heap by time. An event of a replica is valid only if the replica's next event is still at that time,
since a request that arrives in between may bring it forward.
"""

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tools.simulate.prompts import PrefixCache, Prompt
from tools.simulate.replicas import HostCosts, Job, SimulatedReplica
from tools.simulate.workloads import Session

from puna.runtime.routing import MOST_HOLDERS, Policy, RoutedRequest
from puna.runtime.scaling import Demand, ScalingLimits, change

TICK: Final = 0.5
"""Seconds between two decisions on the number of replicas."""


@dataclass(slots=True)
class Outcome:
    """The figures of one simulation."""

    jobs: list[Job]
    seconds: float
    """From the first arrival to the last token."""
    busy: list[float]
    """For each replica that ever ran: seconds in which it computed."""
    cold_starts: int
    replica_seconds: float
    """Sum of the times for which replicas were there."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A session sends one of its requests."""

    number: int
    session: Session
    turn: int


class Cluster:
    """Replicas of one model, and the sessions that use them."""

    def __init__(self, costs: HostCosts, policy: Policy, limits: ScalingLimits) -> None:
        self._costs = costs
        self._policy = policy
        self._limits = limits
        self._events: list[tuple[float, int, _Arrival | SimulatedReplica | str]] = []
        self._order = itertools.count()
        self._numbers = itertools.count()
        self._replicas: list[SimulatedReplica] = []
        self._indexes: dict[int, int] = {}
        """The index of each replica by its number."""
        self._holders: defaultdict[Prompt, dict[int, None]] = defaultdict(dict)
        """For each beginning of a prompt: the numbers of its replicas, the last one to gain it at the end."""
        self._turns: dict[Job, _Arrival] = {}
        self._starting = 0
        self._outcome = Outcome([], 0.0, [], 0, 0.0)

    def run(self, sessions: Sequence[tuple[float, Session]]) -> Outcome:
        """Serve all sessions to their ends."""
        for _ in range(self._limits.least):
            self._add(0.0)
        for number, (moment, session) in enumerate(sessions):
            self._push(moment, _Arrival(number, session, 0))
        if self._limits.most > self._limits.least:
            self._push(TICK, "tick")
        left, now = sum(len(session) for _, session in sessions), 0.0
        while left:
            now, _, event = heapq.heappop(self._events)
            left -= self._handle(event, now)
        for replica in list(self._replicas):
            self._remove(replica, now)
        self._outcome.seconds = now - sessions[0][0]
        return self._outcome

    def _push(self, moment: float, event: "_Arrival | SimulatedReplica | str") -> None:
        if moment < math.inf:
            heapq.heappush(self._events, (moment, next(self._order), event))

    def _handle(self, event: "_Arrival | SimulatedReplica | str", now: float) -> int:
        """Handle one event. Return the number of requests that ended with it."""
        ended = 0
        if isinstance(event, _Arrival):
            self._submit(event, now)
        elif isinstance(event, SimulatedReplica):
            if event.next_event == now:
                for job in event.advance(now):
                    ended += 1
                    self._follow(self._turns.pop(job), job.ended)
                self._push(event.next_event, event)
        elif event == "started":
            self._starting -= 1
            self._add(now)
        else:
            self._scale(now)
            self._push(now + TICK, "tick")
        return ended

    def _submit(self, arrival: _Arrival, now: float) -> None:
        turn = arrival.session[arrival.turn]
        job = Job(turn.prompt, turn.output_tokens, now, turn.answered, arrival.number)
        request = RoutedRequest(turn.prompt.tokens, arrival.number, self._holders_of(turn.prompt))
        replica = self._replicas[self._policy.choose(request, self._replicas)]
        self._turns[job] = arrival
        self._outcome.jobs.append(job)
        replica.submit(job, now)
        self._push(replica.next_event, replica)

    def _follow(self, arrival: _Arrival, now: float) -> None:
        """Let the session think and send its next request."""
        following = _Arrival(arrival.number, arrival.session, arrival.turn + 1)
        if following.turn < len(following.session):
            self._push(now + following.session[following.turn].pause, following)

    def _holders_of(self, prompt: Prompt) -> tuple[tuple[int, int], ...]:
        found: dict[int, int] = {}
        node: Prompt | None = prompt
        while node is not None and len(found) < MOST_HOLDERS:
            # The replicas that gained a beginning last are the least likely to be crowded by its older users.
            for number in itertools.islice(reversed(self._holders.get(node, {})), MOST_HOLDERS - len(found)):
                found.setdefault(self._indexes[number], node.tokens)
            node = node.parent
        return tuple(found.items())

    def _scale(self, now: float) -> None:
        waits = [now - each.waiting[0].arrived for each in self._replicas if each.waiting]
        idle = [each for each in self._replicas if not each.requests]
        longest = min(idle, key=lambda each: each.idle_since, default=None)
        step = change(
            Demand(
                replicas=len(self._replicas),
                starting=self._starting,
                slots=sum(each.slots for each in self._replicas),
                taken_slots=sum(each.taken for each in self._replicas),
                longest_wait=max(waits, default=0.0),
                longest_idle=now - longest.idle_since if longest else 0.0,
            ),
            self._limits,
        )
        if step > 0:
            self._starting += 1
            self._outcome.cold_starts += 1
            self._push(now + self._costs.cold_start, "started")
        elif step < 0 and longest:
            self._remove(longest, now)

    def _add(self, now: float) -> None:
        number = next(self._numbers)

        def moved(prompt: Prompt, gained: bool) -> None:
            if gained:
                self._holders[prompt][number] = None
            else:
                del self._holders[prompt][number]
                if not self._holders[prompt]:
                    del self._holders[prompt]

        cache = PrefixCache(self._costs.slots, moved)
        self._replicas.append(SimulatedReplica(number, self._costs, cache, began=now, idle_since=now))
        self._indexes[number] = len(self._replicas) - 1

    def _remove(self, replica: SimulatedReplica, now: float) -> None:
        self._outcome.busy.append(replica.busy_seconds)
        self._outcome.replica_seconds += now - replica.began
        replica.cache.clear()
        self._replicas.remove(replica)
        self._indexes = {each.number: index for index, each in enumerate(self._replicas)}
