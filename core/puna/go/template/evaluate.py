"""The evaluator of template trees.

A tree is compiled once: each node becomes a closure that takes a Run and the dot, and writes to the run's output. A run
calls the closures, so that the type of a node is not looked up again. Pipelines and operands are compiled by `operands`
into closures that return values.

`break` and `continue` leave a list of nodes early. A list returns a Signal, which passes outwards until a `range` takes
it. Errors name a node, as Go's do. Go reports the node that it visited last, so each closure stores its node in
`Run.node` before it evaluates anything.
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto

from puna.go import json as gojson
from puna.go.template import operands
from puna.go.template.budget import BudgetSpentError
from puna.go.template.formatting import printed, text
from puna.go.template.nodes import (
    ActionNode,
    BranchNode,
    BreakNode,
    ContinueNode,
    ListNode,
    Node,
    TemplateNode,
    TextNode,
)
from puna.go.template.run import Run
from puna.go.template.values import MISSING, Boxed, Pointer, Value, elements, entries, sorted_keys, truth


class Signal(Enum):
    """The statement that left a list of nodes before its end."""

    BREAK = auto()
    CONTINUE = auto()


Step = Callable[[Run, Value], Signal | None]


def compile_list(node: ListNode) -> Step:
    """Compile a list of nodes into a closure that writes to the run's output."""
    steps = [_step(child) for child in node.nodes]
    weight = 1 + sum(map(_weight, node.nodes))

    def walk(run: Run, dot: Value) -> Signal | None:
        budget = run.budget
        # The statements of a list are charged together and in advance: one subtraction for a list instead of one for
        # each node.
        budget.left -= weight
        if budget.left < 0:
            raise BudgetSpentError
        for step in steps:
            signal = step(run, dot)
            if signal is not None:
                return signal
        return None

    return walk


def _weight(node: Node) -> int:
    """Return the largest cost of a statement in units of the budget, without the lists of nodes inside it."""
    match node:
        case TextNode():
            return 1 + (len(node.text) >> 8)
        case ActionNode() | BranchNode():
            return 1 + operands.size(node.pipe)
        case TemplateNode():
            return 2 + (operands.size(node.pipe) if node.pipe else 0)
    return 1


def _step(node: Node) -> Step:
    match node:
        case TextNode():
            content = node.text

            def write(run: Run, _dot: Value) -> None:
                run.out.append(content)

            return write
        case ActionNode():
            return _action(node)
        case BranchNode(word="range"):
            return _range(node)
        case BranchNode():
            return _if_or_with(node)
        case TemplateNode():
            return _template(node)
        case BreakNode():
            return lambda _run, _dot: Signal.BREAK
        case ContinueNode():
            return lambda _run, _dot: Signal.CONTINUE
    raise TypeError(f"{type(node).__name__} is no statement")


def _action(node: ActionNode) -> Step:
    evaluate = operands.pipeline(node.pipe)
    if node.pipe.variables:

        def declare(run: Run, dot: Value) -> None:
            evaluate(run, dot)

        return declare

    def write(run: Run, dot: Value) -> None:
        value = evaluate(run, dot)
        run.budget.print(value)
        run.out.append(value if type(value) is str else printed(value))

    return write


def _if_or_with(node: BranchNode) -> Step:
    evaluate = operands.pipeline(node.pipe)
    body = compile_list(node.body)
    otherwise = compile_list(node.otherwise) if node.otherwise is not None else None
    shifts = node.word == "with"

    def walk(run: Run, dot: Value) -> Signal | None:
        # Variables declared in the condition or the bodies end with the statement.
        mark = len(run.variables)
        value = evaluate(run, dot)
        signal = None
        if truth(value):
            signal = body(run, value if shifts else dot)
        elif otherwise is not None:
            signal = otherwise(run, dot)
        del run.variables[mark:]
        return signal

    return walk


def _range(node: BranchNode) -> Step:
    evaluate = operands.pipeline(node.pipe)
    body = compile_list(node.body)
    otherwise = compile_list(node.otherwise) if node.otherwise is not None else None
    pipe = node.pipe
    names = [variable.path[0] for variable in pipe.variables]

    def bind(run: Run, index: Value, element: Value) -> None:
        if pipe.assigns:
            run.assign(names[-1], element)
            if len(names) > 1:
                run.assign(names[0], index)
            return
        # The pipeline has just declared the loop's variables, so they are the last ones. Each iteration overwrites
        # them.
        run.variables[-1][1] = element
        if len(names) > 1:
            run.variables[-2][1] = index

    def walk(run: Run, dot: Value) -> Signal | None:
        # The loop's variables lie between `outer` and `inner`. Those of the body lie above and end with each iteration.
        outer = len(run.variables)
        pairs = _pairs(run, evaluate(run, dot), len(names))
        inner = len(run.variables)
        signal = None
        for index, element in pairs:
            if names:
                bind(run, index, element)
            signal = body(run, element)
            del run.variables[inner:]
            if signal is Signal.BREAK:
                break
        if not pairs and otherwise is not None:
            signal = otherwise(run, dot)
        del run.variables[outer:]
        # As in Go, a break in the else branch ends this range, but a continue there belongs to the range outside.
        return signal if signal is Signal.CONTINUE and not pairs else None

    return walk


def _pairs(run: Run, value: Value, names: int) -> Sequence[tuple[Value, Value]]:
    """Return the pairs that a range iterates over: index or key, and element."""
    if isinstance(value, Boxed):
        value = value.value
    if value is None or value is MISSING:
        return ()
    if isinstance(value, Pointer):
        value = MISSING if value.target is None else value.target
        if value is MISSING:
            return ()
    if (mapping := entries(value)) is not None:
        items, type_ = mapping
        # The pairs are built before the body runs, so they are charged here. Keys must be sorted, which costs more than
        # a list.
        run.budget.spend(len(items))
        return [(key, Boxed(items[key]) if type_.boxed else items[key]) for key in sorted_keys(items)]
    if (found := elements(value)) is not None:
        run.budget.spend(len(found[0]) >> 2)
        return list(enumerate(map(Boxed, found[0]) if found[1] else found[0]))
    if isinstance(value, int) and not isinstance(value, bool):
        if names > 1:
            raise run.error(f"can't use {text(value)} to iterate over more than one variable")
        # The numbers are not built: a template may range over a billion.
        return _Count(value)
    raise run.error(f"range can't iterate over {text(value)}")


class _Count(Sequence[tuple[Value, Value]]):
    """The pairs of a range over an integer: the numbers from 0 up to it."""

    def __init__(self, end: int) -> None:
        self._end = max(end, 0)

    def __len__(self) -> int:
        return self._end

    def __getitem__(self, at: Value) -> Value:
        if at >= self._end:
            raise IndexError(at)
        return MISSING, at


def _template(node: TemplateNode) -> Step:
    evaluate = operands.pipeline(node.pipe) if node.pipe is not None else None

    def walk(run: Run, dot: Value) -> None:
        # Go reports this node if the called template does not exist.
        run.node = node
        step = run.steps(node.name)
        if step is None:
            raise run.error(f"template {gojson.quote(node.name)} not defined")
        value = evaluate(run, dot) if evaluate is not None else MISSING
        step(run.nested(node.name, value), value)

    return walk
