"""Facts about a model that its template's tree shows, without evaluating the template."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from puna.go.space import SPACE
from puna.go.template.nodes import ActionNode, BranchNode, FieldNode, ListNode, Node, TextNode, VariableNode, children
from puna.go.template.template import Template

LONGEST_TAG: Final = 1024
"""Longest delimiter in characters. Models write no longer texts before thinking or a call."""
_NAMES: Final = frozenset(("messages", "response", "suffix", "toolcalls", "tools"))
"""Field names that show a template's purpose."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a template that outlive its tree."""

    uses: frozenset[str] = frozenset()
    """The names of _NAMES that the template uses, in lower case."""
    thinking_tags: tuple[str, str] | None = None
    tool_tag: str = "{"
    full_tool_round_trip: bool = False


def of(template: Template) -> Facts:
    """Return the facts about a template."""
    return Facts(
        identifiers(template) & _NAMES, thinking_tags(template), tool_tag(template), full_tool_round_trip(template)
    )


def walk(template: Template) -> Iterator[Node]:
    """Yield all nodes of the root and of the defined templates, each before its children."""
    yield from _walk(template.root)
    for name, root in template.definitions.items():
        if name:
            yield from _walk(root)


def _walk(node: Node) -> Iterator[Node]:
    # A list in place of recursion: a generator in each level would pass every node through all levels above it.
    left = [node]
    while left:
        node = left.pop()
        yield node
        left.extend(reversed(list(children(node))))


def identifiers(template: Template) -> frozenset[str]:
    """Return the fields and variables that are used, in lower case. `(f .X).Y` is not searched, as in Ollama."""
    if template.names is None:
        template.names = frozenset(
            name.lower() for node in walk(template) if isinstance(node, FieldNode | VariableNode) for name in node.path
        )
    return template.names


def thinking_tags(template: Template) -> tuple[str, str] | None:
    """Return the texts before and after `.Thinking` in the loop over messages, or None. The last occurrence wins."""
    tags = ["", ""]
    _find_tags(template.root, [], tags)
    return (tags[0], tags[1]) if all(0 < len(tag) <= LONGEST_TAG for tag in tags) else None


def _find_tags(node: Node, above: list[Node], tags: list[str]) -> None:
    if isinstance(node, FieldNode) and node.path[0] == "Thinking":
        loop = next((n for n in reversed(above) if isinstance(n, BranchNode) and n.word == "range"), None)
        around = next((n for n in reversed(above) if isinstance(n, ListNode)), None)
        if loop and around and around.nodes and _loops_over_messages(loop):
            # Ollama takes the first and last node of the list around `.Thinking` for its tags, whatever stands between.
            for i, end in enumerate((around.nodes[0], around.nodes[-1])):
                if isinstance(end, TextNode):
                    tags[i] = end.text.strip(SPACE)
    above.append(node)
    for child in children(node):
        _find_tags(child, above, tags)
    above.pop()


def _loops_over_messages(loop: BranchNode) -> bool:
    return any(isinstance(node, FieldNode) and node.path[0] == "Messages" for node in _walk(loop.pipe))


def tool_tag(template: Template) -> str:
    """Return the text that begins a tool call, such as `<tool_call>`; "{" if the template shows none."""
    branch = _calls_branch(template.root.nodes)
    text = _first_text(branch.body.nodes) if branch else ""
    # The JSON of the call begins with the brace. Text before it is the tag that the model writes first.
    tag = text.partition("{")[0].strip(SPACE)
    return tag if 0 < len(tag) <= LONGEST_TAG else "{"


def _calls_branch(nodes: Sequence[Node]) -> BranchNode | None:
    """Return the first `if` whose condition is `.ToolCalls`."""
    for node in nodes:
        if not isinstance(node, BranchNode):
            continue
        if node.word == "if" and any(
            isinstance(operand, FieldNode) and "ToolCalls" in operand.path
            for command in node.pipe.commands
            for operand in command.arguments
        ):
            return node
        for inner in (node.body, node.otherwise):
            if inner is not None and (found := _calls_branch(inner.nodes)):
                return found
    return None


def _first_text(nodes: Sequence[Node]) -> str:
    """Return the first text that is not blank and precedes all actions; branches are searched too."""
    for node in nodes:
        match node:
            case TextNode():
                if node.text.strip(SPACE):
                    return node.text
            case BranchNode():
                otherwise = node.otherwise.nodes if node.otherwise else ()
                return _first_text(node.body.nodes) or _first_text(otherwise)
            case ActionNode():
                return ""
    return ""


def full_tool_round_trip(template: Template) -> bool:
    """Return whether the template renders tools, tool calls and tool results."""
    if not {"tools", "toolcalls"} <= identifiers(template):
        return False
    # A result is rendered where the source compares the role or holds one of the usual markers.
    return any(mark in template.text for mark in ('eq .Role "tool"', "tool_response", "TOOL_RESULTS"))
