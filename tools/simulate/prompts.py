"""Prompts as paths in a tree, and the prefix cache of one replica.

Theory. A prompt is a chain of parts: a system prompt, a document, a message, an answer. Two prompts share a beginning
exactly as far as their chains are the same, so a prompt is a node of a tree, and its beginnings are the node's
ancestors. A cache is a set of nodes that contains the ancestors of each of its members. It is kept in the order of use.
A use moves the node first and its ancestors after it, so the node that was used longest ago never has a descendant in
the cache, and evicting it keeps the set whole.
"""

from collections import OrderedDict
from collections.abc import Callable


class Prompt:
    """The beginning of a prompt up to the end of one part."""

    __slots__ = ("_children", "parent", "tokens")

    def __init__(self, tokens: int = 0, parent: "Prompt | None" = None) -> None:
        self.tokens = tokens
        """Tokens of this part and all parts before it."""
        self.parent = parent
        self._children: dict[object, Prompt] = {}

    def then(self, name: object, tokens: int) -> "Prompt":
        """Return the prompt that goes on with a part of a name; equal names are equal texts."""
        known = self._children.get(name)
        if known is None:
            known = self._children[name] = Prompt(self.tokens + tokens, self)
        return known

    def unique(self, tokens: int) -> "Prompt":
        """Return the prompt that goes on with a part that occurs nowhere else."""
        return Prompt(self.tokens + tokens, self)


class PrefixCache:
    """The prompts whose KV cache a replica holds, up to a number of tokens."""

    def __init__(self, capacity: int, on_change: Callable[[Prompt, bool], None] | None = None) -> None:
        """`on_change` is told of each beginning that the cache gains (True) or evicts (False)."""
        self._capacity = capacity
        self._on_change = on_change or (lambda _prompt, _gained: None)
        self._nodes: OrderedDict[Prompt, None] = OrderedDict()
        self.tokens = 0

    def match(self, prompt: Prompt) -> int:
        """Return the number of leading tokens that the cache holds."""
        node: Prompt | None = prompt
        while node is not None and node not in self._nodes:
            node = node.parent
        return node.tokens if node else 0

    def use(self, prompt: Prompt) -> None:
        """Hold the prompt and all its beginnings, and evict what was used longest ago."""
        node = prompt
        while node.parent is not None:
            if node in self._nodes:
                self._nodes.move_to_end(node)
            else:
                self._nodes[node] = None
                self.tokens += node.tokens - node.parent.tokens
                self._on_change(node, True)
            node = node.parent
        while self.tokens > self._capacity and len(self._nodes) > 1:
            self._evict()

    def clear(self) -> None:
        """Evict everything."""
        while self._nodes:
            self._evict()

    def _evict(self) -> None:
        oldest, _ = self._nodes.popitem(last=False)
        assert oldest.parent is not None
        self.tokens -= oldest.tokens - oldest.parent.tokens
        self._on_change(oldest, False)
