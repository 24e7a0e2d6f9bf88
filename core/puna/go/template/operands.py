"""The compiler of pipelines and operands into closures that return values."""

from collections.abc import Callable, Sequence
from typing import Final

from puna.errors import TemplateError
from puna.go.template.comparison import ComparisonError
from puna.go.template.fields import ABSENT, follow
from puna.go.template.functions import FUNCTIONS, CallError, ParameterType
from puna.go.template.nodes import (
    BoolNode,
    ChainNode,
    CommandNode,
    DotNode,
    FieldNode,
    IdentifierNode,
    NilNode,
    Node,
    NumberNode,
    PipeNode,
    StringNode,
    VariableNode,
)
from puna.go.template.run import Evaluate, Run
from puna.go.template.values import MISSING, Boxed, Value, truth, type_name, unbox

Command = Callable[[Run, Value, Value], Value]
"""Returns a value for a run, the dot, and the piped value, which is ABSENT for the first command."""


def size(node: Node) -> int:
    """Return the largest number of steps in which a pipeline or an operand is evaluated."""
    match node:
        case PipeNode():
            return sum(map(size, node.commands)) + len(node.variables)
        case CommandNode():
            return sum(map(size, node.arguments))
        case FieldNode() | VariableNode():
            return len(node.path)
        case ChainNode():
            return len(node.path) + size(node.node)
    return 1


def pipeline(node: PipeNode) -> Evaluate:
    """Compile a pipeline. The closure binds its variables; it returns neither None nor Boxed."""
    commands = [_command(command) for command in node.commands]
    names = [variable.path[0] for variable in node.variables]
    first, rest = commands[0], commands[1:]

    def evaluate(run: Run, dot: Value) -> Value:
        # Each closure stores its node first, so that an error below names the node visited last.
        run.node = node
        # This is `unbox`, written out: it runs for every action of every prompt.
        value = first(run, dot, ABSENT)
        if type(value) is Boxed:
            value = value.value
        if value is None:
            value = MISSING
        for command in rest:
            value = unbox(command(run, dot, value))
        for name in names:
            if node.assigns:
                run.assign(name, value)
            else:
                run.variables.append([name, value])
        return value

    return evaluate


def _command(node: CommandNode) -> Command:
    first, arguments = node.arguments[0], node.arguments[1:]
    match first:
        case FieldNode():
            return _field(first, bool(arguments))
        case VariableNode():
            return _variable(first, arguments)
        case ChainNode():
            return _chain(first, bool(arguments))
        case IdentifierNode():
            return _call(first, arguments, node)
    compute = pipeline(first) if isinstance(first, PipeNode) else _constant(first)
    # A pipeline in parentheses stores its own node.
    moves = not isinstance(first, PipeNode)

    def evaluate(run: Run, dot: Value, final: Value) -> Value:
        if moves:
            run.node = first
        if arguments or final is not ABSENT:
            raise run.error(f"can't give argument to non-function {first}")
        return compute(run, dot)

    return evaluate


def _field(node: FieldNode, has_arguments: bool) -> Command:
    path = node.path
    name = path[0] if len(path) == 1 and not has_arguments else None

    def evaluate(run: Run, dot: Value, final: Value) -> Value:
        run.node = node
        # The most frequent operand of prompts: one name of a plain map. It skips the general way.
        if name is not None and type(dot) is dict and final is ABSENT and name in dot:
            return dot[name]
        return follow(run, dot, path, int(has_arguments) + (final is not ABSENT))

    return evaluate


def _variable(node: VariableNode, arguments: Sequence[Node]) -> Command:
    name, path = node.path[0], node.path[1:]

    def evaluate(run: Run, _dot: Value, final: Value) -> Value:
        run.node = node
        value = run.variable(name)
        if path:
            return follow(run, value, path, len(arguments) + (final is not ABSENT))
        if arguments or final is not ABSENT:
            raise run.error(f"can't give argument to non-function {node}")
        return value

    return evaluate


def _chain(node: ChainNode, has_arguments: bool) -> Command:
    compute = _argument(node.node, None)

    def evaluate(run: Run, dot: Value, final: Value) -> Value:
        run.node = node
        return follow(run, compute(run, dot), node.path, int(has_arguments) + (final is not ABSENT))

    return evaluate


def _constant(node: Node) -> Evaluate:
    """Compile a literal or the dot. The caller has set the run's node."""
    match node:
        case DotNode():
            return lambda _run, dot: dot
        case BoolNode():
            boolean = node.value
            return lambda _run, _dot: boolean
        case StringNode():
            content = node.text
            return lambda _run, _dot: content
        case NumberNode():
            return _number(node)
        case NilNode():
            # Go reports this when the command runs, not when the template is parsed.
            return _failing("nil is not a command")
    raise TemplateError(f"can't evaluate command {node}")


def _failing(message: str) -> Evaluate:
    def evaluate(run: Run, _dot: Value) -> Value:
        raise run.error(message)

    return evaluate


def _number(node: NumberNode) -> Evaluate:
    """Return the value of a number in the type that Go infers from its notation."""
    text = node.text
    # `e` is a digit in hexadecimal notation; only `p` begins an exponent there.
    hexadecimal = text[:2].lower() == "0x" and not set(text) & set("pP")
    if node.complex is not None:
        value: Value = node.complex
    elif node.float is not None and not hexadecimal and not text.startswith("'") and set(text) & set(".eEpP"):
        value = node.float
    elif node.integer is not None:
        value = node.integer
    else:
        return _failing(f"{text} overflows int")
    return lambda _run, _dot: value


def _argument(node: Node, type_: ParameterType | None) -> Evaluate:
    """Compile an argument for a parameter of a type. None stands for any type, and accepts MISSING."""
    match node:
        case FieldNode():
            inner = _field(node, False)
        case VariableNode():
            inner = _variable(node, ())
        case ChainNode():
            inner = _chain(node, False)
        case IdentifierNode():
            inner = _call(node, (), node)
        case PipeNode():
            compute = pipeline(node)
            return lambda run, dot: _checked(run, compute(run, dot), type_)
        case NilNode():
            return _nil(node, type_)
        case _:
            return _literal(node, type_)
    return lambda run, dot: _checked(run, inner(run, dot, ABSENT), type_)


def _nil(node: NilNode, type_: ParameterType | None) -> Evaluate:
    def evaluate(run: Run, _dot: Value) -> Value:
        run.node = node
        if type_ == "string":
            raise run.error("cannot assign nil to string")
        return MISSING if type_ == "reflect.Value" else None

    return evaluate


def _literal(node: Node, type_: ParameterType | None) -> Evaluate:
    compute = _constant(node)
    wrong = type_ == "string" and not isinstance(node, StringNode | DotNode)

    def evaluate(run: Run, dot: Value) -> Value:
        run.node = node
        if wrong:
            raise run.error(f"expected string; found {node}")
        return _checked(run, compute(run, dot), type_)

    return evaluate


def _checked(run: Run, value: Value, type_: ParameterType | None) -> Value:
    """Return a value converted to a parameter's type. TemplateError: it does not fit."""
    if type_ is None or type_ == "reflect.Value":
        return value
    if type_ == "string" and value is MISSING:
        raise run.error("invalid value; expected string")
    value = unbox(value)
    if type_ == "string" and not isinstance(value, str):
        raise run.error(f"wrong type for value; expected string; got {type_name(value)}")
    return None if value is MISSING else value


_DECIDING: Final = {"and": False, "or": True}


def _call(node: IdentifierNode, arguments: Sequence[Node], command: Node) -> Command:
    name = node.name
    signature = FUNCTIONS[name]
    fixed = signature.parameters
    computes = [
        _argument(argument, fixed[i] if i < len(fixed) else signature.rest) for i, argument in enumerate(arguments)
    ]
    count = len(computes)

    def prepare(run: Run, final: Value) -> int:
        run.node = node
        # The parser knows all functions, but Ollama runs some templates without its own.
        if name not in run.functions:
            raise run.error(f'"{name}" is not a defined function')
        given = count + (final is not ABSENT)
        if signature.rest is not None:
            if given < len(fixed):
                # Go does not count the piped value in this text, but does in the one below.
                raise run.error(f"wrong number of args for {name}: want at least {len(fixed)} got {count}")
        elif given != len(fixed):
            raise run.error(f"wrong number of args for {name}: want {len(fixed)} got {given}")
        return given

    def evaluate(run: Run, dot: Value, final: Value) -> Value:
        given = prepare(run, final)
        values = [compute(run, dot) for compute in computes]
        if final is not ABSENT:
            type_ = fixed[given - 1] if given <= len(fixed) else signature.rest
            values.append(_checked(run, final, type_))
        run.budget.call(name, values)
        try:
            return signature.call(*values)
        except (CallError, ComparisonError) as error:
            # Go blames the whole command when a function fails, not the argument that it visited last.
            run.node = command
            message = str(error).replace("{name}", str(arguments[0]) if arguments else "")
            raise run.error(f"error calling {name}: {message}") from None

    def decide(run: Run, dot: Value, final: Value) -> Value:
        prepare(run, final)
        value: Value = MISSING
        for compute in computes:
            value = compute(run, dot)
            if truth(value) is _DECIDING[name]:
                return value
        # A piped value is the last argument, and it is reached if no other has decided.
        return value if final is ABSENT else final

    return decide if name in _DECIDING else evaluate
