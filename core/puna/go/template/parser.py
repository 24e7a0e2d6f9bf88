"""The parser of templates, with the error texts of Go's text/template."""

from collections import Counter
from typing import Final, Literal

from puna.errors import TemplateError
from puna.go import json as gojson
from puna.go.template import facts, literals
from puna.go.template.functions import FUNCTIONS
from puna.go.template.lexer import Kind, Token
from puna.go.template.nodes import (
    ActionNode,
    BoolNode,
    BranchNode,
    BreakNode,
    ChainNode,
    CommandNode,
    ContinueNode,
    DotNode,
    FieldNode,
    IdentifierNode,
    ListNode,
    NilNode,
    Node,
    NumberNode,
    PipeNode,
    StringNode,
    TemplateNode,
    TextNode,
    VariableNode,
    is_empty,
)
from puna.go.template.template import Template
from puna.go.template.token_stream import TokenStream

_OPERANDS: Final = frozenset(
    {
        Kind.BOOL,
        Kind.CHAR_CONSTANT,
        Kind.COMPLEX,
        Kind.DOT,
        Kind.FIELD,
        Kind.IDENTIFIER,
        Kind.NUMBER,
        Kind.NIL,
        Kind.RAW_STRING,
        Kind.STRING,
        Kind.VARIABLE,
        Kind.LEFT_PAREN,
    }
)
_STRINGS: Final = (Kind.STRING, Kind.RAW_STRING)
_MAX_DEPTH: Final = 100
"""Deepest nesting, bounded by Python's stack. Go allows more, which templates of models do not need."""


class TemplateSyntaxError(TemplateError):
    """The text is not a template. The message is Go's, such as "template: :1: unclosed action"."""


def parse(text: str) -> Template:
    """Parse a prompt template. Raises TemplateSyntaxError.

    Like in Ollama, a template that uses neither `.Messages` nor `.Response` gets `{{ .Response }}` at its end.
    """
    trees: dict[str, ListNode] = {}
    source = TokenStream(text)
    _Tree("", source, trees).parse_root()
    template = Template(text, trees.get("") or ListNode(position=0), trees)
    # Ollama's walk over the tree takes a call without a pipeline for a call of an undefined template.
    if any(isinstance(node, TemplateNode) and node.pipe is None for node in facts.walk(template)):
        raise TemplateSyntaxError("undefined template specified")
    # Without either, the prompt would lack the answers of earlier turns.
    if not facts.identifiers(template) & {"messages", "response"}:
        command = CommandNode(position=0, arguments=[FieldNode(position=0, path=("Response",))])
        action = ActionNode(position=0, pipe=PipeNode(position=0, commands=[command]))
        root = ListNode(position=0, nodes=[*template.root.nodes, action])
        template = Template(text, root, {**trees, "": root})
    return template


class _End(Node):
    def __str__(self) -> str:
        return "{{end}}"


class _Else(Node):
    def __str__(self) -> str:
        return "{{else}}"


class _Tree:
    """The parser of one tree: the root, or the body of a `define` or `block`."""

    def __init__(self, name: str, source: TokenStream, trees: dict[str, ListNode]) -> None:
        self._name = name
        self._tokens = source
        self._trees = trees
        self._variables: list[str] = []
        # The list knows the scopes, the counter answers at once whether a name is declared in any of them.
        self._declared: Counter[str] = Counter()
        self._declare("$")
        self._action_line = 0
        self._ranges = 0

    def _declare(self, name: str) -> None:
        self._variables.append(name)
        self._declared[name] += 1

    def _error(self, text: str) -> TemplateSyntaxError:
        # Ollama gives its templates no name, hence the two colons.
        return TemplateSyntaxError(f"template: :{self._tokens.line}: {text}")

    def _unexpected(self, token: Token, context: str) -> TemplateSyntaxError:
        if token.kind is not Kind.ERROR:
            return self._error(f"unexpected {token} in {context}")
        extra = ""
        if self._action_line and self._action_line != token.line:
            extra = f" in action started at :{self._action_line}"
            if token.value.endswith(" action"):
                extra = extra.removeprefix(" in action")
        return self._error(f"{token}{extra}")

    def _expect(self, context: str, *kinds: Kind) -> Token:
        token = self._tokens.next_word()
        if token.kind not in kinds:
            raise self._unexpected(token, context)
        return token

    def _unquote(self, token: Token) -> str:
        try:
            return literals.unquote(token.value)
        except ValueError as error:
            raise self._error(str(error)) from None

    def _add(self, root: ListNode) -> None:
        # Go lets a template be defined twice if one definition is blank.
        known = self._trees.get(self._name)
        if known is None or is_empty(known):
            self._trees[self._name] = root
        elif not is_empty(root):
            raise self._error(f"template: multiple definition of template {gojson.quote(self._name)}")

    def parse_root(self) -> None:
        source = self._tokens
        root = ListNode(position=source.peek().position)
        while source.peek().kind is not Kind.EOF:
            mark = source.mark()
            if source.next().kind is Kind.LEFT_DELIMITER:
                token = source.next_word()
                # `define` counts only at the top level, so it is looked for here and not among the actions.
                if token.kind is Kind.KEYWORD and token.value == "define":
                    _Tree("definition", source, self._trees).parse_definition()
                    continue
            source.back(mark)
            node = self._text_or_action()
            if isinstance(node, _End | _Else):
                raise self._error(f"unexpected {node}")
            root.nodes.append(node)
        self._add(root)

    def parse_definition(self) -> None:
        context = "define clause"
        self._name = self._unquote(self._expect(context, *_STRINGS))
        self._expect(context, Kind.RIGHT_DELIMITER)
        self.parse_body(context)

    def parse_body(self, context: str) -> None:
        root, end = self._items()
        if not isinstance(end, _End):
            raise self._error(f"unexpected {end} in {context}")
        self._add(root)

    def _items(self) -> tuple[ListNode, Node]:
        items = ListNode(position=self._tokens.peek_word().position)
        while self._tokens.peek_word().kind is not Kind.EOF:
            node = self._text_or_action()
            if isinstance(node, _End | _Else):
                return items, node
            items.nodes.append(node)
        raise self._error("unexpected EOF")

    def _text_or_action(self) -> Node:
        token = self._tokens.next_word()
        if token.kind is Kind.TEXT:
            return TextNode(position=token.position, text=token.value)
        if token.kind is not Kind.LEFT_DELIMITER:
            raise self._unexpected(token, "input")
        self._action_line = token.line
        node = self._action()
        self._action_line = 0
        return node

    def _action(self) -> Node:
        mark = self._tokens.mark()
        token = self._tokens.next_word()
        if token.kind is Kind.KEYWORD:
            match token.value:
                case "if" | "with" | "range" as word:
                    return self._branch(word)
                case "end":
                    return _End(position=self._expect("end", Kind.RIGHT_DELIMITER).position)
                case "else":
                    return self._else()
                case "break" | "continue" as word:
                    return self._leave_range(word, token)
                case "template":
                    return self._template()
                case "block":
                    return self._block()
        self._tokens.back(mark)
        position = self._tokens.peek_word().position
        return ActionNode(position=position, pipe=self._pipeline("command", Kind.RIGHT_DELIMITER))

    def _else(self) -> Node:
        token = self._tokens.peek_word()
        # `else if` and `else with` leave their keyword unread, so that the branch can read a nested branch from there.
        if not (token.kind is Kind.KEYWORD and token.value in ("if", "with")):
            token = self._expect("else", Kind.RIGHT_DELIMITER)
        return _Else(position=token.position)

    def _leave_range(self, word: Literal["break", "continue"], keyword: Token) -> Node:
        token = self._tokens.next_word()
        if token.kind is not Kind.RIGHT_DELIMITER:
            raise self._unexpected(token, f"{{{{{word}}}}}")
        if not self._ranges:
            raise self._error(f"{{{{{word}}}}} outside {{{{range}}}}")
        return (BreakNode if word == "break" else ContinueNode)(position=keyword.position)

    def _branch(self, word: Literal["if", "with", "range"]) -> BranchNode:
        self._enter()
        known = len(self._variables)
        pipe = self._pipeline(word, Kind.RIGHT_DELIMITER)
        self._ranges += word == "range"
        body, end = self._items()
        self._ranges -= word == "range"
        otherwise = None
        if isinstance(end, _Else):
            token = self._tokens.peek()
            if word in ("if", "with") and token.kind is Kind.KEYWORD and token.value == word:
                self._tokens.next()
                # The nested branch reads the `end` of both.
                otherwise = ListNode(position=end.position, nodes=[self._branch(word)])
            else:
                otherwise, end = self._items()
                if not isinstance(end, _End):
                    raise self._error(f"expected end; found {end}")
        self._declared.subtract(self._variables[known:])
        del self._variables[known:]
        self._tokens.depth -= 1
        return BranchNode(position=pipe.position, word=word, pipe=pipe, body=body, otherwise=otherwise)

    def _enter(self) -> None:
        self._tokens.depth += 1
        if self._tokens.depth > _MAX_DEPTH:
            raise self._error("max expression depth exceeded")

    def _template_name(self, context: str) -> Token:
        return self._expect(context, *_STRINGS)

    def _template(self) -> TemplateNode:
        context = "template clause"
        token = self._template_name(context)
        name = self._unquote(token)
        mark = self._tokens.mark()
        pipe = None
        if self._tokens.next_word().kind is not Kind.RIGHT_DELIMITER:
            self._tokens.back(mark)
            pipe = self._pipeline(context, Kind.RIGHT_DELIMITER)
        return TemplateNode(position=token.position, name=name, pipe=pipe)

    def _block(self) -> TemplateNode:
        self._enter()
        context = "block clause"
        token = self._template_name(context)
        name = self._unquote(token)
        pipe = self._pipeline(context, Kind.RIGHT_DELIMITER)
        _Tree(name, self._tokens, self._trees).parse_body(context)
        self._tokens.depth -= 1
        return TemplateNode(position=token.position, name=name, pipe=pipe)

    def _pipeline(self, context: str, end: Kind) -> PipeNode:
        pipe = PipeNode(position=self._tokens.peek_word().position)
        self._declarations(pipe, context)
        while True:
            mark = self._tokens.mark()
            token = self._tokens.next_word()
            if token.kind is end:
                break
            if token.kind not in _OPERANDS:
                raise self._unexpected(token, context)
            self._tokens.back(mark)
            pipe.commands.append(self._command())
        if not pipe.commands:
            raise self._error(f"missing value for {context}")
        for stage, command in enumerate(pipe.commands[1:], 2):
            # Later commands receive the previous value, so they must be able to take an argument.
            if isinstance(command.arguments[0], BoolNode | DotNode | NilNode | NumberNode | StringNode):
                raise self._error(f"non executable command in pipeline stage {stage}")
        return pipe

    def _declarations(self, pipe: PipeNode, context: str) -> None:
        """Read `$x :=`, `$x =` or, in a range, `$i, $x :=`. Other tokens stay unread."""
        while self._tokens.peek_word().kind is Kind.VARIABLE:
            mark = self._tokens.mark()
            variable = self._tokens.next()
            after = self._tokens.peek_word()
            comma = after.kind is Kind.CHAR and after.value == ","
            if not comma and after.kind not in (Kind.ASSIGN, Kind.DECLARE):
                self._tokens.back(mark)
                return
            self._tokens.next_word()
            pipe.variables.append(VariableNode(position=variable.position, path=(variable.value,)))
            self._declare(variable.value)
            if not comma:
                pipe.assigns = after.kind is Kind.ASSIGN
                return
            if context != "range" or len(pipe.variables) > 1:
                raise self._error(f"too many declarations in {context}")
            if self._tokens.peek_word().kind not in (Kind.VARIABLE, Kind.RIGHT_DELIMITER, Kind.RIGHT_PAREN):
                raise self._error("range can only initialize variables")

    def _command(self) -> CommandNode:
        command = CommandNode(position=self._tokens.peek_word().position)
        while True:
            self._tokens.peek_word()
            operand = self._operand()
            if operand is not None:
                command.arguments.append(operand)
            mark = self._tokens.mark()
            token = self._tokens.next()
            # A space separates the arguments of one command; without it, another operand is an error.
            if token.kind is Kind.SPACE:
                continue
            if token.kind in (Kind.RIGHT_DELIMITER, Kind.RIGHT_PAREN):
                self._tokens.back(mark)
            elif token.kind is not Kind.PIPE:
                raise self._unexpected(token, "operand")
            break
        if not command.arguments:
            raise self._error("empty command")
        return command

    def _operand(self) -> Node | None:
        node = self._term()
        if node is None or self._tokens.peek().kind is not Kind.FIELD:
            return node
        position = self._tokens.peek().position
        path: list[str] = []
        while self._tokens.peek().kind is Kind.FIELD:
            # `.A.B` arrives as two FIELD tokens without a space between.
            path.append(self._tokens.next().value[1:])
        match node:
            case FieldNode():
                return FieldNode(position=position, path=(*node.path, *path))
            case VariableNode():
                return VariableNode(position=position, path=(*node.path, *path))
            case BoolNode() | StringNode() | NumberNode() | NilNode() | DotNode():
                raise self._error(f"unexpected . after term {gojson.quote(str(node))}")
        return ChainNode(position=position, node=node, path=tuple(path))

    def _term(self) -> Node | None:
        mark = self._tokens.mark()
        token = self._tokens.next_word()
        at = token.position
        match token.kind:
            case Kind.IDENTIFIER:
                # Unknown functions are errors of the template's text in Go, before anything runs.
                if token.value not in FUNCTIONS:
                    raise self._error(f"function {gojson.quote(token.value)} not defined")
                return IdentifierNode(position=at, name=token.value)
            case Kind.DOT:
                return DotNode(position=at)
            case Kind.NIL:
                return NilNode(position=at)
            case Kind.VARIABLE:
                if not self._declared[token.value]:
                    raise self._error(f"undefined variable {gojson.quote(token.value)}")
                return VariableNode(position=at, path=(token.value,))
            case Kind.FIELD:
                return FieldNode(position=at, path=(token.value[1:],))
            case Kind.BOOL:
                return BoolNode(position=at, value=token.value == "true")
            case Kind.CHAR_CONSTANT | Kind.COMPLEX | Kind.NUMBER:
                return self._number(token)
            case Kind.LEFT_PAREN:
                self._enter()
                pipe = self._pipeline("parenthesized pipeline", Kind.RIGHT_PAREN)
                self._tokens.depth -= 1
                return pipe
            case Kind.STRING | Kind.RAW_STRING:
                return StringNode(position=at, quoted=token.value, text=self._unquote(token))
        self._tokens.back(mark)
        return None

    def _number(self, token: Token) -> NumberNode:
        try:
            return literals.number(token.position, token.value, token.kind)
        except ValueError as error:
            raise self._error(str(error)) from None
