"""What commands write to terminals of several kinds, with all sequences that move and colour."""

import re

import pytest
from tests.e2e.server import MODELS, PUNA
from tests.e2e.terminal import CTRL_C, terminal

COLOR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3|4|9|10)[0-9](?:;[0-9;]*)?m")
KINDS = {
    "dumb": {"TERM": "dumb"},
    "colourless": {"NO_COLOR": "1"},
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "narrow": {},
}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def show(server, kind, tmp_path):
    """A function that returns all that a command writes until it ends, and its exit status."""
    server.upload("kid", MODELS / "scripted.gguf", template="{{ .Prompt }}", system="Caf\xe9 \u2713")
    (tmp_path / "kid.gguf").write_bytes((MODELS / "scripted.gguf").read_bytes() + bytes(12_000_000))

    def run(*words, keys=()):
        variables = KINDS[kind] | {"PUNA_GRPC_HOST": server.grpc, "HOME": str(tmp_path)}
        with terminal([PUNA, *words], columns=30 if kind == "narrow" else 100, **variables) as shown:
            for pattern, key in keys:
                shown.expect(pattern)
                shown.press(key)
            status = shown.ended()
            while shown._read(0.1):
                pass
            return shown.raw, status

    return run


def suits(text, kind):
    """Return whether a terminal can show a text."""
    return not (
        (kind == "dumb" and "\x1b" in text)
        or (kind == "colourless" and COLOR.search(text))
        or (kind == "ascii" and not text.isascii())
    )


@pytest.mark.parametrize(
    "words",
    [
        ["create", "made", "--gguf", "kid.gguf"],
        ["doctor"],
        ["run", "llamita", "Why is the sky blue?"],
        ["show", "kid"],
        ["bench", "kid", "--streams", "1", "--prompt-tokens", "10", "--output-tokens", "4"],
    ],
    ids=lambda words: words[0],
)
def test_commands(show, kind, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, status = show(*words)
    assert status == 0
    assert suits(text, kind)
    assert "Traceback" not in text
    # No line of a bar is broken, so that it can be erased.
    for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n").split("\n"):
        assert "%" not in line or len(line) <= 30 or kind != "narrow"
    assert ("Note: characters" in text) == (kind == "ascii" and words == ["show", "kid"])


def test_top_is_left_by_ctrl_c(show, kind):
    if kind == "dumb":
        text, status = show("top", "--interval", "0.1")
    else:
        text, status = show("top", "--interval", "0.1", keys=[("SECONDS|…", CTRL_C)])
        # The screen of before and the cursor are back.
        assert text.index("\x1b[?1049h") < text.index("\x1b[?1049l")
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert status == 0
    assert suits(text, kind)


def test_the_prompt_of_run(show, kind):
    text, status = show(
        "run",
        "kid",
        keys=[
            (">>> ", "caf\xe9 a\r"),
            ("Hello, world!", ""),
            (">>> ", "without end b\r"),
            ("w39 w0", CTRL_C),
            (">>> ", "/show system\r"),
            ("Caf", ""),
            (">>> ", "/bye\r"),
        ],
    )
    assert status == 0
    # What was typed is echoed by the terminal in its own encoding.
    assert suits(text.replace("caf\xe9", ""), kind)
