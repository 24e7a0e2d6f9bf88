import pytest

from puna.go.template.lexer import Kind, Token, tokens


def kinds(text):
    return [(token.kind.name, token.value) for token in tokens(text)]


def inside(text):
    """Return the tokens of an action, without its delimiters, spaces and EOF."""
    return [each for each in kinds("{{" + text + "}}")[1:-2] if each[0] != "SPACE"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("$x := .A.B", [("VARIABLE", "$x"), ("DECLARE", ":="), ("FIELD", ".A"), ("FIELD", ".B")]),
        ("$ = .", [("VARIABLE", "$"), ("ASSIGN", "="), ("DOT", ".")]),
        ("if true | print nil", [
            ("KEYWORD", "if"), ("BOOL", "true"), ("PIPE", "|"), ("IDENTIFIER", "print"), ("NIL", "nil")]),
        ("(len .)", [("LEFT_PAREN", "("), ("IDENTIFIER", "len"), ("DOT", "."), ("RIGHT_PAREN", ")")]),
        (r'"a\"}}" `b}}` ' + r"'\''", [("STRING", r'"a\"}}"'), ("RAW_STRING", "`b}}`"), ("CHAR_CONSTANT", r"'\''")]),
        ("-1 +0x_1F 1e3 .5 0b101 0o17 1i", [
            ("NUMBER", n) for n in ["-1", "+0x_1F", "1e3", ".5", "0b101", "0o17", "1i"]]),
        ("1+2i", [("COMPLEX", "1+2i")]),
        ("$i, $é", [("VARIABLE", "$i"), ("CHAR", ","), ("VARIABLE", "$é")]),
    ],
)  # fmt: skip
def test_tokens_inside_an_action(text, found):
    assert inside(text) == found


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("a {{.}} b", ["a ", " b"]),
        ("a \n{{- . -}}\t b", ["a", "b"]),
        ("a {{/* c */}} b", ["a ", " b"]),
        ("a {{- /* c */ -}} b", ["a", "b"]),
        ("  {{- . }}", []),
        ("a\u00a0{{- . }}", ["a\u00a0"]),
        ("{{-1}} b", [" b"]),
    ],
)
def test_a_minus_beside_a_space_trims_the_text(text, texts):
    assert [token.value for token in tokens(text) if token.kind is Kind.TEXT] == texts


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{{ .A ", "unclosed action"),
        ("{{ (", "unclosed action"),
        ("{{ ( }}", "unclosed left paren"),
        ("{{ ) }}", "unexpected right paren"),
        ("{{/* a", "unclosed comment"),
        ("{{/* a */ }}", "comment ends before closing delimiter"),
        ("{{ : }}", "expected :="),
        ('{{ "a\n" }}', "unterminated quoted string"),
        ("{{ `a }}", "unterminated raw quoted string"),
        ("{{ 'a }}", "unterminated character constant"),
        ("{{ 3k }}", 'bad number syntax: "3k"'),
        ("{{ 1+2 }}", 'bad number syntax: "1+2"'),
        ("{{ .A? }}", "bad character U+003F '?'"),
        ("{{ a\x00 }}", "bad character U+0000"),
        ("{{ € }}", "unrecognized character in action: U+20AC '€'"),
    ],
)
def test_errors_are_the_last_token_and_have_gos_text(text, error):
    assert kinds(text)[-1] == ("ERROR", error)


def test_a_token_knows_its_place():
    found = list(tokens("é\n{{ .A }}\n{{ .B }}"))
    assert [(token.value, token.position, token.line) for token in found if token.kind is Kind.FIELD] == [
        (".A", 5, 2),
        (".B", 14, 3),
    ]


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (Token(Kind.EOF, 0, "EOF", 1), "EOF"),
        (Token(Kind.ERROR, 0, "unclosed action", 1), "unclosed action"),
        (Token(Kind.KEYWORD, 0, "end", 1), "<end>"),
        (Token(Kind.DOT, 0, ".", 1), "<.>"),
        (Token(Kind.TEXT, 0, "0123456789", 1), '"0123456789"'),
        (Token(Kind.TEXT, 0, "0123456789a", 1), '"0123456789"...'),
    ],
)
def test_tokens_show_themselves_as_in_gos_parse_errors(token, shown):
    assert str(token) == shown
