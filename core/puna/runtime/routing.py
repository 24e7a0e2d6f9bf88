"""Choice of the replica that serves a request.

Theory. A replica is a host that has a model loaded, and a model may have several. A replica keeps the KV cache of
earlier prompts, so a prompt that begins like one of them needs prefill only for the rest. A replica evaluates prompts
in the order of their arrival, and a request without a free slot waits until an answer ends. Both are known when the
request arrives, so the time to its first token can be predicted for each replica:

    wait for a slot  = (requests in front that have no slot either + 1) * seconds of an answer / slots
    prefill in front = prompt tokens that the replica has yet to evaluate * seconds per token
    own prefill      = (prompt tokens - cached tokens) * seconds per token

Beside sequences that decode, prefill is slower, so a token has two prices.

A prompt also delays the answers that are under way where it is evaluated:

    delay of others  = CROWDING * own prefill * requests / slots

`PrefixRouting` takes the least sum. It stays with a replica whose cache helps for as long as the prefill that it saves
takes longer than the wait there, and leaves it when another replica would send the first token sooner. Of replicas that
would send it at the same time, the one with fewer requests gets a long prompt.

A request is not compared with all replicas of a large cluster. The replicas that hold the longest beginning of the
prompt and a few others at random are enough: two random choices already avoid the most loaded replicas (Mitzenmacher,
"The Power of Two Choices in Randomized Load Balancing", 2001).

Nothing here waits or speaks to a replica. tools/simulate runs the same code in virtual time.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

MOST_HOLDERS: Final = 8
MOST_OTHERS: Final = 8
CROWDING: Final = 2.0
"""How much the delay of others weighs. Simulated chats and questions about documents on overloaded replicas gain up to
20 % of goodput over a weight of 0, prompts that share nothing lose nothing, and larger weights gain little more."""


class Replica(Protocol):
    """A replica as the core knows it."""

    @property
    def number(self) -> int:
        """Its number, which no other replica of the model ever has."""

    @property
    def slots(self) -> int:
        """Number of sequences that it runs at once."""

    @property
    def requests(self) -> int:
        """Number of requests that it was given and that have not ended: with a slot or without."""

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens of these requests that it has yet to evaluate."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The seconds that a model takes on the replicas' machines."""

    prefill_seconds: float
    """Seconds for one token of a prompt on a replica that has nothing else to do."""
    busy_prefill_seconds: float
    """The same beside sequences that decode."""
    answer_seconds: float
    """Mean time from an answer's first token to its last one where all slots are taken."""


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """The facts of a request on which the choice depends."""

    prompt_tokens: int
    session: int = 0
    """Number that the requests of one conversation share."""
    holders: tuple[tuple[int, int], ...] = ()
    """Replicas that hold a beginning of the prompt: the index and the number of cached tokens, longest first."""


class Policy(Protocol):
    """A way to choose a replica."""

    def choose(self, request: RoutedRequest, replicas: Sequence[Replica], /) -> int:
        """Return the index of a replica. `replicas` is not empty."""


class RandomRouting:
    """Any replica, all with the same probability."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def choose(self, _request: RoutedRequest, replicas: Sequence[Replica], /) -> int:
        """Return the index of a replica."""
        return self._random.randrange(len(replicas))


class LeastLoadedRouting:
    """The replica with the fewest requests for each of its slots, and the first of equal ones at random."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def choose(self, _request: RoutedRequest, replicas: Sequence[Replica], /) -> int:
        """Return the index of a replica."""
        # Without a random beginning the first replicas would take all requests of a cluster that is idle.
        first = self._random.randrange(len(replicas))
        order: tuple[int, ...] = (*range(first, len(replicas)), *range(first))
        return min(order, key=lambda index: replicas[index].requests / replicas[index].slots)


class SessionRouting:
    """The same replica for all requests of a session, by rendezvous hashing.

    A replica that comes or goes moves only the sessions that it takes or had.
    """

    def choose(self, request: RoutedRequest, replicas: Sequence[Replica], /) -> int:
        """Return the index of a replica."""
        return max(range(len(replicas)), key=lambda index: hash((request.session, replicas[index].number)))


class PrefixRouting:
    """The replica with the least predicted time to the first token. The module's text has the theory."""

    def __init__(self, seed: int, costs: Costs) -> None:
        self._random = random.Random(seed)
        self.costs = costs
        """The costs, which may be replaced as better ones are known."""

    def choose(self, request: RoutedRequest, replicas: Sequence[Replica], /) -> int:
        """Return the index of a replica."""
        cached = dict(request.holders[:MOST_HOLDERS])
        candidates = [*cached, *(index for index in self._others(len(replicas)) if index not in cached)]
        return min(candidates, key=lambda index: self._rank(request, replicas[index], cached.get(index, 0)))

    def first_token_seconds(self, request: RoutedRequest, replica: Replica, cached: int) -> float:
        """Predict the time to the first token on a replica that holds `cached` tokens of the prompt."""
        waiting = max(replica.requests - replica.slots + 1, 0)
        prefill = replica.prefill_tokens + _uncached(request, cached)
        price = self.costs.busy_prefill_seconds if replica.requests else self.costs.prefill_seconds
        return waiting * self.costs.answer_seconds / replica.slots + prefill * price

    def _rank(self, request: RoutedRequest, replica: Replica, cached: int) -> tuple[float, float]:
        crowd = replica.requests / replica.slots
        delay = CROWDING * _uncached(request, cached) * self.costs.busy_prefill_seconds * crowd
        return self.first_token_seconds(request, replica, cached) + delay, crowd

    def _others(self, count: int) -> Sequence[int]:
        if count <= MOST_HOLDERS + MOST_OTHERS:
            return self._random.sample(range(count), count)
        return [self._random.randrange(count) for _ in range(MOST_OTHERS)]


def _uncached(request: RoutedRequest, cached: int) -> int:
    """Return how many tokens of a prompt are evaluated. Even if all are cached, the last one is."""
    return max(request.prompt_tokens - cached, 1)


def policies(seed: int, costs: Costs) -> Mapping[str, Policy]:
    """Return the policies by the names that users choose."""
    return {
        "random": RandomRouting(seed),
        "least-loaded": LeastLoadedRouting(seed),
        "session": SessionRouting(),
        "prefix": PrefixRouting(seed, costs),
    }
