"""The nodes of a parsed template. `str(node)` is the source text as Go's errors show it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from puna.go import json as gojson
from puna.go.space import SPACE


@dataclass(slots=True, kw_only=True)
class Node:
    """A node of the tree. `position` is an offset in characters in the template's text."""

    position: int


@dataclass(slots=True)
class ListNode(Node):
    """A sequence of nodes."""

    nodes: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return "".join(map(str, self.nodes))


@dataclass(slots=True)
class TextNode(Node):
    """Plain text."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class IdentifierNode(Node):
    """The name of a function."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(slots=True)
class VariableNode(Node):
    """A variable `$x`, with fields if there are any: `$x.A.B`."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.path)


@dataclass(slots=True)
class FieldNode(Node):
    """`.A.B`."""

    path: tuple[str, ...]

    def __str__(self) -> str:
        return "." + ".".join(self.path)


@dataclass(slots=True)
class DotNode(Node):
    """`.`."""

    def __str__(self) -> str:
        return "."


@dataclass(slots=True)
class NilNode(Node):
    """`nil`."""

    def __str__(self) -> str:
        return "nil"


@dataclass(slots=True)
class BoolNode(Node):
    """`true` or `false`."""

    value: bool

    def __str__(self) -> str:
        return "true" if self.value else "false"


@dataclass(slots=True)
class NumberNode(Node):
    """A number with its value in each type; None for a type that it does not fit."""

    text: str
    integer: int | None = None
    unsigned: int | None = None
    float: "float | None" = None
    complex: "complex | None" = None

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class StringNode(Node):
    """A string. `quoted` is its source text."""

    quoted: str
    text: str

    def __str__(self) -> str:
        return self.quoted


@dataclass(slots=True)
class CommandNode(Node):
    """An operand, or a function and its arguments."""

    arguments: list[Node] = field(default_factory=list)

    def __str__(self) -> str:
        return " ".join(f"({node})" if isinstance(node, PipeNode) else str(node) for node in self.arguments)


@dataclass(slots=True)
class PipeNode(Node):
    """A pipeline: commands, of which each receives the previous value. It may declare or assign variables."""

    commands: list[CommandNode] = field(default_factory=list)
    variables: list[VariableNode] = field(default_factory=list)
    assigns: bool = False
    """True for the operator `=`, False for `:=`."""

    def __str__(self) -> str:
        out = " | ".join(map(str, self.commands))
        if self.variables:
            return ", ".join(map(str, self.variables)) + (" = " if self.assigns else " := ") + out
        return out


@dataclass(slots=True)
class ChainNode(Node):
    """Fields of a parenthesized pipeline: `(index .A 0).B`."""

    node: Node
    path: tuple[str, ...]

    def __str__(self) -> str:
        # Parentheses are no nodes of their own. They are written again where a pipeline is an operand.
        inner = f"({self.node})" if isinstance(self.node, PipeNode) else str(self.node)
        return ".".join((inner, *self.path))


@dataclass(slots=True)
class ActionNode(Node):
    """`{{ pipeline }}`."""

    pipe: PipeNode

    def __str__(self) -> str:
        return f"{{{{{self.pipe}}}}}"


@dataclass(slots=True)
class BranchNode(Node):
    """`{{ if }}`, `{{ with }}` or `{{ range }}`."""

    word: Literal["if", "with", "range"]
    pipe: PipeNode
    body: ListNode
    otherwise: ListNode | None

    def __str__(self) -> str:
        otherwise = "" if self.otherwise is None else f"{{{{else}}}}{self.otherwise}"
        return f"{{{{{self.word} {self.pipe}}}}}{self.body}{otherwise}{{{{end}}}}"


@dataclass(slots=True)
class BreakNode(Node):
    """`{{ break }}`."""

    def __str__(self) -> str:
        return "{{break}}"


@dataclass(slots=True)
class ContinueNode(Node):
    """`{{ continue }}`."""

    def __str__(self) -> str:
        return "{{continue}}"


@dataclass(slots=True)
class TemplateNode(Node):
    """`{{ template "name" pipeline }}`."""

    name: str
    pipe: PipeNode | None

    def __str__(self) -> str:
        return f"{{{{template {gojson.quote(self.name)}{'' if self.pipe is None else f' {self.pipe}'}}}}}"


def children(node: Node) -> Iterator[Node]:
    """Yield the children of a node, conditions before bodies. A ChainNode yields none, as in Ollama."""
    match node:
        case ListNode():
            yield from node.nodes
        case ActionNode():
            yield node.pipe
        case TemplateNode() if node.pipe is not None:
            yield node.pipe
        case BranchNode():
            yield node.pipe
            yield node.body
            if node.otherwise is not None:
                yield node.otherwise
        case PipeNode():
            yield from node.commands
        case CommandNode():
            yield from node.arguments


def is_empty(node: Node) -> bool:
    """Return whether a tree holds only white space."""
    if isinstance(node, ListNode):
        return all(map(is_empty, node.nodes))
    return isinstance(node, TextNode) and not node.text.strip(SPACE)
