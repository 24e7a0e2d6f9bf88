"""What a template's tree says about the model it is for: pure functions, nothing is run."""

from collections.abc import Iterator

from puna.gotemplate.nodes import (
    BranchNode,
    FieldNode,
    ListNode,
    Node,
    TextNode,
    VariableNode,
    children,
)
from puna.gotemplate.template import Template


def walk(template: Template) -> Iterator[Node]:
    """Yield every node of the root and of all defined templates, each before what stands inside it."""
    yield from _walk(template.root)
    for name, root in template.definitions.items():
        if name:
            yield from _walk(root)


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in children(node):
        yield from _walk(child)


def identifiers(template: Template) -> frozenset[str]:
    """Return the names of fields and variables used, in lower case; of `(f .X).Y` only what the parentheses hold."""
    return frozenset(
        name.lower() for node in walk(template) if isinstance(node, FieldNode | VariableNode) for name in node.path
    )


def _mentions(node: Node, field: str) -> bool:
    return any(isinstance(inner, FieldNode) and field in inner.path for inner in _walk(node))


def thinking_tags(template: Template) -> tuple[str, str] | None:
    """Return the texts around `.Thinking` in the loop over the messages; None without both. The last place wins."""
    found: list[tuple[str, str]] = []
    _find_tags(template.root, [], found)
    return found[-1] if found else None


def _find_tags(node: Node, above: list[Node], found: list[tuple[str, str]]) -> None:
    if isinstance(node, FieldNode) and node.path[0] == "Thinking":
        loop = next((n for n in reversed(above) if isinstance(n, BranchNode) and n.word == "range"), None)
        around = next((n for n in reversed(above) if isinstance(n, ListNode)), None)
        if loop and around and around.nodes and _mentions(loop.pipe, "Messages"):
            opening, closing = _trimmed(around.nodes[0]), _trimmed(around.nodes[-1])
            if opening and closing:
                found.append((opening, closing))
    above.append(node)
    for child in children(node):
        _find_tags(child, above, found)
    above.pop()


def _trimmed(node: Node) -> str:
    return node.text.strip() if isinstance(node, TextNode) else ""


def tool_tag(template: Template) -> str:
    """Return the text that begins a tool call in this template, such as `<tool_call>`; `{` where none shows."""
    branch = next((node for node in _walk(template.root) if _asks_for_calls(node)), None)
    text = _first_text(branch.body.nodes) if isinstance(branch, BranchNode) else ""
    return text.partition("{")[0].strip() or "{"


def _asks_for_calls(node: Node) -> bool:
    return isinstance(node, BranchNode) and node.word == "if" and _mentions(node.pipe, "ToolCalls")


def _first_text(nodes: list[Node]) -> str:
    """Return the first text that is not blank before any action, looking into branches."""
    for node in nodes:
        match node:
            case TextNode():
                if node.text.strip():
                    return node.text
            case BranchNode():
                return _first_text(node.body.nodes)
            case _:
                return ""
    return ""


def full_tool_round_trip(template: Template) -> bool:
    """Say whether the template tells a model of its tools, its calls and their results."""
    if not {"tools", "toolcalls"} <= identifiers(template):
        return False
    return any(mark in template.text for mark in ('eq .Role "tool"', "tool_response", "TOOL_RESULTS"))
