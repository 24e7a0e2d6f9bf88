"""Cuts a Go template where the model's answer begins: after its first `.Response`.

The last turn of a conversation is rendered through that part, so that the prompt ends where the model goes on.
"""

from dataclasses import replace

from puna.go.template.nodes import ActionNode, BranchNode, CommandNode, FieldNode, ListNode, Node, PipeNode
from puna.go.template.template import Template


def cut_after_response(template: Template) -> Template | None:
    """Return a template that ends with the first `.Response`; None where an else follows it, which cannot be cut.

    Conditions stay whole, and templates that the source defines are dropped, as in Ollama.
    """
    cutter = _Cutter()
    root = cutter.list(template.root)
    return None if root is None or cutter.broken else Template(template.text, root, {})


class _Cutter:
    """Copies the tree in order and drops every node after `.Response`."""

    def __init__(self) -> None:
        self._cut = False
        self.broken = False

    def list(self, node: ListNode) -> ListNode | None:
        if self._cut:
            return None
        # The order matters: children after the cut come out as None.
        kept = [inner for child in node.nodes if (inner := self._node(child)) is not None]
        return replace(node, nodes=kept)

    def _node(self, node: Node) -> Node | None:
        # The field itself stays: the last turn is rendered with an empty response, or with the client's beginning.
        if isinstance(node, FieldNode) and "Response" in node.path:
            self._cut = True
            return node
        if self._cut:
            return None
        match node:
            case BranchNode():
                return self._branch(node)
            case ActionNode():
                pipe = self._pipe(node.pipe)
                return None if pipe is None else replace(node, pipe=pipe)
            case PipeNode():
                return self._pipe(node)
        return node

    def _branch(self, node: BranchNode) -> BranchNode:
        body = self.list(node.body)
        otherwise = self.list(node.otherwise) if node.otherwise is not None else None
        # The list after the cut is gone, and a branch cannot be evaluated without it.
        if body is None or (node.otherwise is not None and otherwise is None):
            self.broken = True
            return node
        return replace(node, body=body, otherwise=otherwise)

    def _pipe(self, pipe: PipeNode) -> PipeNode | None:
        commands: list[CommandNode] = []
        for command in pipe.commands:
            kept = [inner for argument in command.arguments if (inner := self._node(argument)) is not None]
            # A command without arguments cannot be evaluated, so the whole action is dropped.
            if not kept:
                return None
            commands.append(replace(command, arguments=kept))
        return replace(pipe, commands=commands)
