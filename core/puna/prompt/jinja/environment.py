"""The Jinja dialect of chat templates: jinja2's sandbox, printing as llama.cpp's engine does.

Templates come with untrusted models, so they run sandboxed, and in a process that can be killed (puna.sandbox).
Authors try them on llama.cpp's engine as often as on jinja2. Where the two differ, llama.cpp counts, because Ollama
serves the model with its prompt. None prints as nothing (jinja2 prints "None"), lists print as their items in a row,
attributes of an undefined value are undefined, JSON has spaces after commas and colons and no HTML escapes, and floats
in it have six digits. Printed floats have all their digits, and the filter `string` makes "None" of None.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from jinja2 import ChainableUndefined, TemplateError, TemplateRuntimeError, Undefined, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from puna.prompt.value import Value

FAILURES: Final = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""The exceptions of a running template: Jinja's own, and those of Python that its expressions run into."""

_PART: Final = "_part"
"""The name of a filter that only rewritten templates use."""

_AROUND: Final = 40
"""Characters of the source shown on each side of the place of an error."""


@dataclass(frozen=True, slots=True)
class Raised:
    """A call of `raise_exception` by a template."""

    offset: int
    """The place of the call's parenthesis in the source, in characters; -1: unknown."""
    message: str


class RaisedByTemplateError(TemplateRuntimeError):
    """A template called `raise_exception`."""

    def __init__(self, raised: Raised) -> None:
        super().__init__(raised.message)
        self.raised = raised


def as_text(value: Value) -> str:
    """Return the text that `{{ value }}` prints."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, Undefined | Mapping):
        return ""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, list | tuple):
        return "".join([as_text(each) for each in value])
    return str(value)


def as_string(value: Value) -> str:
    """The filter `string`: lists, objects and None as Python writes them."""
    return str(value) if value is None or isinstance(value, Mapping | list | tuple) else as_text(value)


def to_json(value: Value, indent: int | None = None, item: str = ", ", key: str = ": ", level: int = 0) -> str:
    """Return a value as JSON. Raises TypeError for a value that JSON cannot hold."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    # By identity, because 1 == True.
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        # Six digits, as llama.cpp's JSON of templates has.
        return f"{value:g}"
    if isinstance(value, Mapping):
        parts = [
            f"{json.dumps(str(k), ensure_ascii=False)}{key}{to_json(v, indent, item, key, level + 1)}"
            for k, v in value.items()
        ]
        opening, closing = "{", "}"
    elif isinstance(value, list | tuple | Iterator):
        parts = [to_json(each, indent, item, key, level + 1) for each in value]
        opening, closing = "[", "]"
    else:
        raise TypeError(f"Unknown (built-in) filter 'tojson' for type {type(value).__name__}")
    if indent is None or not parts:
        return opening + item.join(parts) + closing
    margin = "\n" + " " * (indent * (level + 1))
    return f"{opening}{margin}{(item.rstrip() + margin).join(parts)}{margin[: len(margin) - indent]}{closing}"


def tojson(
    value: Value,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson`, which takes what Python's json.dumps takes."""
    # Python's encoder sorts at every level.
    if sort_keys:
        value = json.loads(json.dumps(value, sort_keys=True))
    item, key = separators or (", ", ": ")
    text = to_json(value, indent, item, key)
    return text if not ensure_ascii else "".join([c if c < "\x7f" else json.dumps(c)[1:-1] for c in text])


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, which marks the model's text for training. Here it is only its body."""

    tags: Final = {"generation"}  # type: ignore[misc]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return the nodes of the body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Adapter(NodeTransformer):
    """Rewrites the expressions that jinja2 evaluates otherwise than llama.cpp."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._offset = 0

    def get_visitor(self, node: nodes.Node) -> Callable[..., nodes.Node] | None:
        """Return the method that rewrites a node; None: only its children are visited."""
        rewriting: dict[type[nodes.Node], Callable[..., nodes.Node]] = {
            nodes.Concat: self._concat,
            nodes.Call: self._call,
        }
        return rewriting.get(type(node))

    def _concat(self, node: nodes.Concat) -> nodes.Node:
        """Make `~` print None as nothing."""
        self.generic_visit(node)
        node.nodes = [nodes.Filter(each, _PART, [], [], None, None, lineno=node.lineno) for each in node.nodes]
        return node

    def _call(self, node: nodes.Call) -> nodes.Node:
        """Pass `raise_exception` its own place in the source. jinja2 itself knows only the line."""
        if isinstance(node.node, nodes.Name) and node.node.name == "raise_exception":
            # The tree is visited in the order of the source, so the search goes on behind the previous call.
            found = self._source.find("raise_exception", self._offset)
            opening = self._source.find("(", found) if found >= 0 else -1
            self._offset = max(opening, self._offset)
            node.kwargs.append(nodes.Keyword("_offset", nodes.Const(opening, lineno=node.lineno), lineno=node.lineno))
        self.generic_visit(node)
        return node


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and runs chat templates."""

    intercepted_binops = frozenset(["+"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=ChainableUndefined,
            finalize=as_text,
            # `break`, `continue` and `generation` are no part of Jinja, but Hugging Face's engine has them and
            # templates use them.
            extensions=[LoopControlExtension, _Generation],
            cache_size=0,
        )
        self.filters |= {"tojson": tojson, _PART: as_text, "string": as_string, "safe": as_string}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}

    def compiled(self, source: str) -> Callable[[Mapping[str, Value]], str]:
        """Return a function from variables to text. Raises jinja2.TemplateSyntaxError."""
        # The cache of jinja2 is off: callers keep the compiled templates, with a bound of their own.
        tree = _Adapter(source).visit(self.parse(source))
        template = self.template_class.from_code(self, self.compile(tree), self.make_globals(None))
        render: Callable[[Mapping[str, Value]], str] = template.render
        return render

    def is_safe_attribute(self, obj: Value, attr: str, value: Value) -> bool:
        """Allow lists to grow: a template's lists are made for it alone."""
        if isinstance(obj, list) and attr in ("append", "pop"):
            return True
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Value, right: Value) -> Value:
        """Make `+` join texts if one side is a string."""
        if operator == "+" and (isinstance(left, str) or isinstance(right, str)):
            left, right = as_text(left), as_text(right)
        return super().call_binop(context, operator, left, right)


def place_in_source(source: str, offset: int, what: str, message: str) -> str:
    """Return llama.cpp's message for an error at an offset (in characters) of a template's source."""
    before = source[:offset]
    line, column = before.count("\n") + 1, offset - before.rfind("\n")
    start = max(0, offset - _AROUND)
    shown = source[start : offset + _AROUND].replace("\n", "\u21b5")
    return (
        f"\n------------\nWhile executing {what} at line {line}, column {column} in source:\n"
        f"...{shown}...\n{' ' * (offset - start + 3)}^\nError: {message}"
    )


def _raise_exception(message: Value = "", _offset: int = -1) -> str:
    raise RaisedByTemplateError(Raised(_offset, as_text(message)))


def _strftime_now(pattern: str) -> str:
    return time.strftime(pattern)
