"""Values of JSON that no honest client sends, beside those that it does, as strategies of JSON text.

Texts rather than Python values, since Python has no value for much of what is hostile: numbers of many digits, keys
that come twice, half of a surrogate pair.
"""

import json
from dataclasses import fields

from hypothesis import strategies as st

from puna.options import Options

DIGEST = "sha256:" + "a" * 64
HERE = "127.0.0.1:1"
"""A registry that is not there: the only one that the servers under attack may speak to."""
NAMES = ("scripted", "embedder")
OTHERS = (
    "fuzzed",
    "fuzzed:v1",
    "absent",
    f"{HERE}/a/b:c",
    f"http://{HERE}/a/b:c",
    "",
    " ",
    ":",
    "/",
    "a" * 400,
    "../../etc/passwd",
    "a:b:c",
    "fuzzed:cloud",
    "fuzzed:local",
    "fuzzed-cloud",
    "a/b/c/d/e",
    "::1/a/b",
    "[::1]:5/a/b",
    "x\u0000y",
    "ﬀ",
    "con",
    ".hidden",
    "registry.ollama.ai/library/absent",
)
STRINGS = (
    *("", " ", "\u0000", "\ud800", "\udfff\ud800", "\ufeff", "\u202e\u2028", "é" * 50, "🏴\u200d☠️", "a" * 3000),
    *(
        "a",
        "g",
        "i",
        "user",
        "assistant",
        "system",
        "tool",
        "json",
        "function",
        "text",
        "image_url",
        "required",
        "auto",
    ),
    *("<|im_end|>", "</think>", "<tool_call>", "{{.Prompt}}", "{{range 99999}}{{end}}", "{% for %}", "%s%n", "$(id)"),
    *("../../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/", "data:image/png;base64,AAAA", DIGEST),
    *("1", "-1", "1h", "99999999999h", "1e300", "true", "null", "NaN", "2020-01-01", "0x10", "\r\nX: y", "high"),
)
INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    4096,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**53 + 1,
    2**62,
    2**63 - 1,
    2**63,
    -(2**63),
    2**80,
)
NUMBERS = ("0.5", "-0.0", "1.0", "1e3", "1e-400", "1e308", "-1e308", "1e309", "9" * 400, "0." + "1" * 400, "1E+2")
ODD = (
    "[" * 60 + "]" * 60,
    "[" * 12000 + "]" * 12000,
    '{"a":' * 60 + "1" + "}" * 60,
    '{"a":' * 3000 + "1" + "}" * 3000,
    "[" + ",".join(["0"] * 3000) + "]",
    "[" + ",".join(["{}"] * 500) + "]",
    "{" + ",".join(f'"k{number}":{number}' for number in range(1000)) + "}",
    '{"a":1,"a":2,"A":3}',
    '{"":null}',
    '{"__proto__":{},"constructor":1}',
    '"\\ud83d"',
    '"\\u0000"',
)
SCHEMAS = (
    '"json"',
    '""',
    "null",
    "{}",
    '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}',
    '{"type":"string","pattern":"^a{1,3}$"}',
    '{"enum":[1,"a",null]}',
    '{"$ref":"#"}',
    '{"type":"array","items":{"$ref":"#/$defs/x"},"$defs":{"x":{"type":"boolean"}}}',
    '{"type":"integer","multipleOf":7,"minimum":-5}',
    '{"type":5}',
    '{"properties":[]}',
    '{"not":{}}',
    '{"type":"array","minItems":9999999999999}',
)

booleans = st.sampled_from(("true", "false"))
integers = st.sampled_from(INTEGERS).map(str) | st.integers(-(2**66), 2**66).map(str)
small = st.integers(0, 16).map(str)
floats = st.sampled_from(("0", "0.8", "1", "-1", "2.5", *NUMBERS)) | st.floats(
    allow_nan=False, allow_infinity=False
).map(repr)
strings = (st.sampled_from(STRINGS) | st.text(max_size=20)).map(json.dumps)
honest = st.sampled_from(NAMES)
names = (honest | honest | honest | st.sampled_from(OTHERS)).map(json.dumps)
other_names = st.sampled_from(OTHERS).map(json.dumps)


@st.composite
def objects(draw, keys, values, most=3):
    """Objects; `keys` and `values` are strategies of texts."""
    pairs = draw(st.lists(st.tuples(keys, values), max_size=most))
    return "{" + ",".join(f"{key}:{value}" for key, value in pairs) + "}"


def arrays(values, most=3):
    """Arrays of texts."""
    return st.lists(values, max_size=most).map(lambda each: "[" + ",".join(each) + "]")


scalars = st.just("null") | booleans | integers | floats | strings
odd = st.sampled_from(ODD)
anything = st.recursive(scalars | odd, lambda inner: arrays(inner) | objects(strings, inner), max_leaves=6)


@st.composite
def options(draw):
    """Options of a model. Those that make it be loaded again have few values, for a load takes its time."""
    out = {"num_predict": draw(st.sampled_from(("0", "1", "2", "5", "12")))}
    for name in draw(st.lists(st.sampled_from([each.name for each in fields(Options)]), max_size=3)):
        if name in ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"):
            if draw(st.integers(0, 2)) == 0:
                out[name] = draw(st.sampled_from(("64", "-1", str(2**62), "null", "1.5", '"a"')))
        elif name == "stop":
            out[name] = draw(arrays(strings) | scalars)
        else:
            out[name] = draw(integers | floats | scalars)
    if draw(st.integers(0, 9)) == 0:
        out[draw(st.sampled_from(("", "unknown", "lib", "NUM_CTX", "stop ")))] = draw(anything)
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in out.items()) + "}"


schemas = st.sampled_from(SCHEMAS) | anything
MUTATIONS = ("cut", "drop", "repeat", "flip", "insert", "swap")
TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\\",
    b"\\u",
    b"\x00",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"1e",
    b"-",
    b"\n",
)


@st.composite
def mutated(draw, data):
    """Bytes with a few things done to them."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, max(len(out) - 1, 0))), draw(st.integers(1, 30))
        match draw(st.sampled_from(MUTATIONS)):
            case "cut":
                del out[at:]
            case "drop":
                del out[at : at + length]
            case "repeat":
                out[at:at] = out[at : at + length] * draw(st.integers(1, 50))
            case "flip" if out:
                out[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                out[at:at] = draw(st.sampled_from(TOKENS)) * draw(st.integers(1, 3))
            case "swap":
                out[at : at + length] = out[at : at + length][::-1]
    return bytes(out)
