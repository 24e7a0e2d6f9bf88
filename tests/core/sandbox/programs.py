"""Random template programs, in Go's language and in Jinja: nodes of every kind, nested, with arguments that hurt."""

import random

from hypothesis import strategies as st

NUMBERS = ["0", "1", "7", "999", "99999", "999999999999", "-1", "1e9", "0x7fffffff"]
GO_VALUES = [
    ".",
    ".Prompt",
    ".System",
    ".Messages",
    ".Tools",
    "$",
    "$x",
    '"a"',
    '"%s%s"',
    '"%[1]v%*d"',
    "nil",
    "true",
    *NUMBERS,
]
GO_FUNCTIONS = [
    *("print", "printf", "println", "len", "index", "slice", "html", "js", "urlquery", "json", "eq", "ne", "lt", "and"),
    *("or", "not", "call", "currentDate", "toTypeScriptType"),
]
JINJA_VALUES = [
    *("messages", "messages[0].content", "tools", "x", "'ab'", "'%s%99999d'", "none", "true", "loop.index", "[1, 2]"),
    *("{'a': x}", "range(9999)", "range(10 ** 9)", "namespace(y=1)", "cycler('a', 'b')", "lipsum(99)", *NUMBERS),
]
JINJA_FILTERS = [
    *("tojson", "length", "join(x)", "list", "string", "indent(9999)", "center(99999)", "replace('a', x)", "reverse"),
    *(
        "batch(3)",
        "slice(3)",
        "wordwrap(1)",
        "format(1)",
        "format(x, x)",
        "groupby('role')",
        "sort",
        "unique",
        "urlize",
    ),
    *("truncate(5)", "xmlattr", "pprint", "map('upper')", "selectattr('role')", "sum", "striptags", "title", "safe"),
]
JINJA_OPERATORS = ["+", "*", "**", "~", "%", "//", "in", "==", "and"]


def go_pipe(pick, depth):
    if depth <= 0 or pick(3) == 0:
        return GO_VALUES[pick(len(GO_VALUES))]
    name = GO_FUNCTIONS[pick(len(GO_FUNCTIONS))]
    arguments = " ".join(f"({go_pipe(pick, depth - 1)})" for _ in range(pick(4)))
    piped = f" | {GO_FUNCTIONS[pick(len(GO_FUNCTIONS))]}" * (pick(4) == 0)
    return f"{name} {arguments}{piped}"


def go_nodes(pick, depth):
    return "".join(go_node(pick, depth) for _ in range(1 + pick(3)))


def go_node(pick, depth):
    pipe = go_pipe(pick, 3)
    kind = pick(8) if depth > 0 else pick(3)
    match kind:
        case 0:
            return "text "
        case 1:
            return f"{{{{ {pipe} }}}}"
        case 2:
            return f"{{{{ $x = {pipe} }}}}"
        case 3:
            return (
                f"{{{{ if {pipe} }}}}{go_nodes(pick, depth - 1)}{{{{ else }}}}{go_nodes(pick, depth - 1)}{{{{ end }}}}"
            )
        case 4:
            return f"{{{{ with {pipe} }}}}{go_nodes(pick, depth - 1)}{{{{ end }}}}"
        case 5:
            return f"{{{{ range {pipe} }}}}{go_nodes(pick, depth - 1)}{{{{ break }}}}{{{{ end }}}}"
        case 6:
            return f'{{{{ template "t" {pipe} }}}}'
    return f"{{{{ range {pipe} }}}}{go_nodes(pick, depth - 1)}{{{{ end }}}}"


def go_program(pick):
    definition = f'{{{{ define "t" }}}}{{{{ $x := . }}}}{go_nodes(pick, 2)}{{{{ end }}}}'
    return f"{definition}{{{{ $x := .Prompt }}}}{go_nodes(pick, 4)}"


def jinja_expression(pick, depth):
    if depth <= 0 or pick(3) == 0:
        return JINJA_VALUES[pick(len(JINJA_VALUES))]
    match pick(4):
        case 0:
            return f"({jinja_expression(pick, depth - 1)} | {JINJA_FILTERS[pick(len(JINJA_FILTERS))]})"
        case 1:
            operator = JINJA_OPERATORS[pick(len(JINJA_OPERATORS))]
            return f"({jinja_expression(pick, depth - 1)} {operator} {jinja_expression(pick, depth - 1)})"
        case 2:
            return f"m({jinja_expression(pick, depth - 1)})"
    return f"({jinja_expression(pick, depth - 1)} if {jinja_expression(pick, depth - 1)} else x)"


def jinja_nodes(pick, depth):
    return "".join(jinja_node(pick, depth) for _ in range(1 + pick(3)))


def jinja_node(pick, depth):
    value = jinja_expression(pick, 3)
    match pick(6) if depth > 0 else pick(3):
        case 0:
            return "text "
        case 1:
            return f"{{{{ {value} }}}}"
        case 2:
            return f"{{% set x = {value} %}}"
        case 3:
            return f"{{% if {value} %}}{jinja_nodes(pick, depth - 1)}{{% endif %}}"
        case 4:
            return f"{{% for x in {value} %}}{jinja_nodes(pick, depth - 1)}{{% endfor %}}"
    return f"{{% filter {JINJA_FILTERS[pick(len(JINJA_FILTERS))]} %}}{jinja_nodes(pick, depth - 1)}{{% endfilter %}}"


def jinja_program(pick):
    return f"{{% macro m(x) %}}{jinja_nodes(pick, 2)}{{% endmacro %}}{jinja_nodes(pick, 4)}"


@st.composite
def _drawn(draw, program):
    return program(lambda count: draw(st.integers(0, count - 1)))


go = _drawn(go_program)
jinja = _drawn(jinja_program)


def samples(count):
    """Return programs of both languages, the same ones each time."""
    chance = random.Random(7)
    programs = {"go": go_program, "jinja": jinja_program}
    return [(language, programs[language](chance.randrange)) for _ in range(count) for language in programs]
