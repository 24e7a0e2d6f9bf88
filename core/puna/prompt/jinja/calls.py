"""Reads tool calls in the layout that a chat template implies.

The text begins where the first call may begin and is complete: puna.prompt.jinja.parser keeps it until the answer ends.
One reader walks over it, a position in the text, and each syntax of calls has a method that reads one call there.

Reading is lenient. Ollama's engine binds a model to a grammar once a call begins; here the model writes freely. So
white space around markers is not significant, closing markers may be missing, and a text that cannot be read is given
back as content. A call without a marker must name a known tool.
"""

import ast
import json
import re
import secrets
import string
from collections.abc import Mapping, Sequence
from typing import Any, Final

from puna.go import json as gojson
from puna.messages import Tool, ToolCall
from puna.prompt.jinja.arguments import Schemas, parsed
from puna.prompt.jinja.bare_keys import read_value
from puna.prompt.jinja.nested_arguments import members
from puna.prompt.layout import CallSyntax, OutputLayout
from puna.prompt.value import Value

_ID_LETTERS: Final = string.ascii_letters + string.digits
_ID_LENGTH: Final = 32
_CDATA: Final = re.compile(r"\s*<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_ONLY_MARKERS: Final = re.compile(r"(?:<[^<>]*>\s*)*")


class UnreadableError(Exception):
    """The text is no call from the current position on."""


def read_calls(text: str, layout: OutputLayout, tools: Sequence[Tool]) -> tuple[tuple[ToolCall, ...], str]:
    """Return the calls with which a text begins, and the rest of the text; markers alone do not count as a rest."""
    reader = CallReader(text, layout, tools)
    reader.read()
    rest = text[reader.done :].strip()
    return tuple(reader.calls), "" if _ONLY_MARKERS.fullmatch(rest) else rest


class CallReader:
    """A position in a text, which moves from call to call."""

    def __init__(self, text: str, layout: OutputLayout, tools: Sequence[Tool]) -> None:
        self._text = text
        self._layout = layout
        self._at = 0
        # Longest first, so that a name that begins like another is found.
        self._names = sorted((tool.name for tool in tools), key=len, reverse=True)
        # The schema decides whether the text of a tagged argument is a string or JSON.
        self._schemas = Schemas(tools)
        self.calls: list[ToolCall] = []
        self.done = 0
        """The end of the last call with its closing markers."""

    def read(self) -> None:
        """Read calls until there are no more."""
        layout = self._layout
        one = {
            CallSyntax.JSON: self._json_call,
            CallSyntax.TAGGED_JSON: self._tagged_call,
            CallSyntax.TAGGED: self._tagged_call,
            CallSyntax.NESTED: self._tagged_call,
            CallSyntax.BARE_KEYS: self._bare_keys_call,
            CallSyntax.PYTHON: self._python_calls,
        }.get(layout.call_syntax)
        if one is None:
            return
        try:
            while self._at < len(self._text):
                # Both are optional: models leave markers out, and a section opens only before its first call.
                for opening in (layout.section_start, layout.call_start):
                    self._take(opening)
                if layout.json.in_array and layout.call_syntax is CallSyntax.JSON:
                    self._take("[")
                one()
                self._take(layout.call_end)
                if layout.json.in_array and layout.call_syntax is CallSyntax.JSON:
                    self._take("]")
                self._take(layout.section_end)
                # A comma is passed over only if another call follows; otherwise it is content.
                # A later call that cannot be read gives back only the text behind this point.
                self.done = self._at
                self._take(",")
        except UnreadableError:
            return

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _take(self, marker: str) -> bool:
        """Skip white space and a marker if it follows; return whether it did."""
        self._skip()
        marker = marker.strip()
        if not marker or not self._text.startswith(marker, self._at):
            return False
        self._at += len(marker)
        return True

    def _need(self, marker: str) -> None:
        if marker.strip() and not self._take(marker):
            raise UnreadableError

    def _until(self, *markers: str) -> str:
        """Return the text before the first of the markers, and stop in front of that marker."""
        places = [self._text.find(each, self._at) for each in markers if each]
        end = min((each for each in places if each >= 0), default=-1)
        if end < 0:
            raise UnreadableError
        out = self._text[self._at : end]
        self._at = end
        return out

    def _json(self) -> Value:
        self._skip()
        try:
            # raw_decode stops at the end of the value, and markers may follow. Numbers are floats, as in the calls that
            # Ollama returns.
            value, self._at = json.JSONDecoder(parse_int=float).raw_decode(self._text, self._at)
        except (ValueError, RecursionError) as error:
            raise UnreadableError from error
        return value

    def _add(self, name: str, arguments: Value, made: Value = None) -> None:
        # Models that saw arguments as text in the prompt write them as text.
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments, parse_int=float)
            except ValueError as error:
                raise UnreadableError from error
        if not name or not isinstance(arguments, Mapping):
            raise UnreadableError
        # An id may be a number.
        if isinstance(made, float):
            made = gojson.number(made)
        identity = made if isinstance(made, str) and made else new_id()
        text = gojson.dumps(arguments)
        self.calls.append(ToolCall(name=name, arguments=text, index=len(self.calls), id=identity))

    def _json_call(self) -> None:
        value = self._json()
        if isinstance(value, list):
            for each in value:
                self._json_object(each)
        else:
            self._json_object(value)

    def _json_object(self, value: Value) -> None:
        members = self._layout.json
        if not isinstance(value, Mapping):
            raise UnreadableError
        # The name of the tool is itself the key of the object.
        if not members.name:
            name, arguments = next(iter(value.items()), ("", None))
            if members.arguments and isinstance(arguments, Mapping):
                arguments = arguments.get(members.arguments)
            return self._add(name, arguments, _member(value, members.id))
        name = _member(value, members.name)
        # The notation of OpenAI's API, which models write whatever their template shows.
        if name is None and isinstance(value.get("function"), Mapping):
            value = value["function"]
        name = name if name is not None else value.get("name")
        arguments = _member(value, members.arguments)
        for other in ("arguments", "parameters"):
            arguments = value.get(other) if arguments is None else arguments
        # Without a marker any JSON object could be meant, so only the name of a known tool makes it a call.
        bare = not self._layout.calls_marker
        if not isinstance(name, str) or (bare and name not in self._names):
            raise UnreadableError
        return self._add(name, {} if arguments is None else arguments, _member(value, members.id))

    def _name(self, *markers: str) -> str:
        """Read the name of a tool: a known one, the longest first, or else the text before one of the markers."""
        self._skip()
        for name in self._names:
            if self._text.startswith(name, self._at):
                # "get" is not the name in "get_all(", unless the marker behind the name begins with such a character.
                following = self._text[self._at + len(name) : self._at + len(name) + 1]
                if not (following.isalnum() or following in ("_", "-")) or any(
                    self._text.startswith(each, self._at + len(name)) for each in markers if each
                ):
                    self._at += len(name)
                    return name
        return self._until(*markers).strip()

    def _tagged_call(self) -> None:
        layout, tagged = self._layout, self._layout.tagged
        name, made = self._tagged_head()
        if layout.call_syntax is CallSyntax.TAGGED_JSON:
            arguments = self._json()
        elif layout.call_syntax is CallSyntax.NESTED:
            arguments = self._nested_arguments(name)
        else:
            arguments = self._tagged_arguments(name)
        self._take(tagged.after_arguments)
        self._take(tagged.close)
        self._add(name, arguments, made)

    def _tagged_head(self) -> tuple[str, str | None]:
        """Read a call up to its arguments; return the name and the id."""
        layout, tagged = self._layout, self._layout.tagged
        made = self._first_id() if tagged.id_first else None
        self._need(tagged.before_name)
        markers = [tagged.after_name, tagged.separator, tagged.before_id, tagged.after_id, tagged.before_arguments]
        # The name ends at the first of any markers that may follow, since models leave some of them out.
        ends = [each.strip() for each in (*markers, tagged.before_key, tagged.close, layout.call_end) if each.strip()]
        if layout.call_syntax is CallSyntax.TAGGED_JSON:
            ends.append("{")
        name = self._name(*(ends or ["\n"]))
        self._take(tagged.after_name)
        self._pass_attributes()
        if not tagged.id_first:
            # A model may write the call without an id; then the arguments follow at once.
            if tagged.before_id.strip() and self._take(tagged.before_id):
                made = self._until(*[each for each in (tagged.after_id.strip(), "{") if each]).strip().strip('"')
            self._take(tagged.after_id)
        self._take(tagged.separator)
        self._take(tagged.before_arguments)
        return name, tagged.id_template.format(name=name, id=made) if made else None

    def _pass_attributes(self) -> None:
        if self._layout.tagged.after_attributes:
            self._until(self._layout.tagged.after_attributes)
            self._take(self._layout.tagged.after_attributes)

    def _nested_arguments(self, name: str) -> dict[str, Any]:
        """Read arguments in elements. The text before each element's "<" is the layout's before_key."""
        mark = self._layout.tagged.before_key.removesuffix("<")
        try:
            arguments, self._at = members(self._text, self._at, mark, self._schemas.of(name))
        except (ValueError, RecursionError) as error:
            raise UnreadableError from error
        return arguments

    def _first_id(self) -> str:
        self._take(self._layout.tagged.before_id)
        made = self._until(self._layout.tagged.after_id.strip()).strip()
        self._take(self._layout.tagged.after_id)
        return made

    def _bare_keys_call(self) -> None:
        self._need(self._layout.tagged.before_name)
        name = self._name("{")
        try:
            arguments, self._at = read_value(self._text, self._at)
        except (ValueError, IndexError, RecursionError) as error:
            raise UnreadableError from error
        self._add(name, arguments)

    def _tagged_arguments(self, name: str) -> dict[str, Any]:
        tagged = self._layout.tagged
        out: dict[str, Any] = {}
        # Without a marker before keys, arguments cannot be told apart.
        if not tagged.before_key.strip():
            return out
        while self._take(tagged.before_key):
            key = self._key()
            if tagged.before_json and self._take(tagged.before_json):
                out[key] = parsed(self._value(tagged.after_value))
                continue
            self._exactly(tagged.before_value)
            out[key] = self._schemas.value(name, key, self._value(tagged.after_value))
        return out

    def _key(self) -> str:
        """Read the key of an argument behind its first marker, and pass the marker behind the key."""
        after = self._layout.tagged.after_key
        key = self._until(after.strip() or "\n").strip().strip("\"'")
        self._exactly(after)
        self._pass_attributes()
        return key

    def _exactly(self, marker: str) -> None:
        """Skip a marker and only its own white space: a value may begin with white space of its own."""
        if marker and self._text.startswith(marker, self._at):
            self._at += len(marker)
        elif marker.strip():
            self._take(marker)

    def _value(self, closing: str) -> str:
        """Read a value up to its closing marker. The white space of the marker may be missing."""
        bare = closing.strip()
        end = self._text.find(bare, self._at) if bare else -1
        if end < 0:
            raise UnreadableError
        # A CDATA section may contain the closing marker as text.
        if self._layout.tagged.cdata and (found := _CDATA.match(self._text, self._at)):
            end = self._text.find(bare, found.end())
            if end < 0:
                raise UnreadableError
            self._at = end + len(bare)
            return found[1]
        lead = closing[: len(closing) - len(closing.lstrip())]
        # Only the white space that the template writes before its marker is cut: more of it belongs to the value.
        value = self._text[self._at : end]
        self._at = end + len(bare)
        return value[: len(value) - len(lead)] if lead and value.endswith(lead) else value

    def _python_calls(self) -> None:
        found = re.compile(r"\[.*\]", re.DOTALL).match(self._text, self._at)
        closing = self._layout.section_end.strip()
        end = self._text.find(closing, self._at) if closing else -1
        source = self._text[self._at : end] if end >= 0 else found[0] if found else ""
        try:
            # The text is parsed and never run. Line ends within strings, which Python does not allow, are escaped
            # first.
            tree = ast.parse(_STRING.sub(lambda found: found[0].replace("\n", "\\n"), source.strip()), mode="eval").body
            made = [(_callee(each), _keywords(each)) for each in (tree.elts if isinstance(tree, ast.List) else [tree])]
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UnreadableError from error
        for name, arguments in made:
            self._add(name, arguments)
        self._at += len(source)


def new_id() -> str:
    """Return a fresh id for a call, of the kind that llama.cpp makes."""
    return "".join([secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH)])


def _member(value: Mapping[str, Any], path: str) -> Value:
    found: Value = value
    for each in path.split(".") if path else []:
        found = found.get(each) if isinstance(found, Mapping) else None
    return found if path else None


def _callee(node: ast.expr) -> str:
    if not isinstance(node, ast.Call):
        raise ValueError("not a call")
    return ast.unparse(node.func)


_STRING: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
"""A string of Python, in which models put bare line ends."""

# Models mix the words of JSON into Python's notation.
_JSON_WORDS: Final = {"true": True, "false": False, "null": None}


def _keywords(node: ast.expr) -> dict[str, Any]:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("not a call with named arguments")
    return {each.arg or "": _literal(each.value) for each in node.keywords}


def _literal(node: ast.expr) -> Value:
    if isinstance(node, ast.Name) and node.id in _JSON_WORDS:
        return _JSON_WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        return {str(_literal(k)): _literal(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
    value = ast.literal_eval(node)
    # Numbers of arguments are floats, as in Go.
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
