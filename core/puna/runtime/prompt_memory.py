"""The prompts that each replica of a model has evaluated lately, as far as the core knows.

Theory. A prompt is cut into blocks of equal length, and each block is known by the hash of itself and of all blocks
before it. So two prompts have as many blocks in common as they begin alike. Each replica has a list of blocks in the
order of their last use, which is as long as its KV cache. A use moves the blocks of a prompt to the end, the first
block last. A block is therefore never forgotten before the blocks that follow it, and a binary search finds how much of
a prompt a replica holds.

The memory is exact to a block, except that a host may keep less than its KV cache has room for. Such an error lasts for
one request, which evaluates the prompt again. To ask the hosts would take a message to each replica and a tokenization
before it; a look at 16 replicas takes some ten microseconds here.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, TypeAlias

from puna.backend import SequenceRequest

BLOCK_CHARACTERS: Final = 256
BLOCK_TOKENS: Final = 64
"""Token ids of a block, where a prompt consists of them; also about as many as a block of text has."""

Blocks: TypeAlias = Sequence[int]
"""The blocks of a prompt. The rest of the prompt, which is shorter than a block, is left out."""


def blocks_of(request: SequenceRequest) -> list[int]:
    """Return the blocks of a request's prompt. Requests with different cache salts have none in common."""
    prompt: str | tuple[int, ...] = request.prompt
    media: Sequence[bytes] = request.media
    if request.chat is not None:
        messages = request.chat.messages
        prompt = "\0".join(f"{each.role}\0{each.content}" for each in messages)
        media = [data for each in messages for data in each.media]
    length = BLOCK_CHARACTERS if isinstance(prompt, str) else BLOCK_TOKENS
    # The first image stands for all of them: a conversation keeps it, and other conversations have another one.
    last = hash((request.cache_salt, media[0] if media else b""))
    found = []
    for start in range(0, len(prompt) - length + 1, length):
        last = hash((last, prompt[start : start + length]))
        found.append(last)
    return found


class PromptMemory:
    """The blocks that the cache of one replica ought to hold."""

    def __init__(self, blocks: int) -> None:
        """`blocks` is how many fit."""
        self._most = max(blocks, 1)
        self._used: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._used)

    def match(self, blocks: Blocks) -> int:
        """Return how many blocks of a prompt, from its beginning on, the replica holds."""
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            if blocks[middle] in self._used:
                low = middle + 1
            else:
                high = middle
        return low

    def use(self, blocks: Blocks) -> None:
        """Note that the replica evaluates a prompt."""
        used = self._used
        # Blocks that do not fit are the last ones of the prompt.
        for each in reversed(blocks[: self._most]):
            used[each] = None
            used.move_to_end(each)
        while len(used) > self._most:
            used.popitem(last=False)
