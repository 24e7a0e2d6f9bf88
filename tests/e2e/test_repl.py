"""The prompt of `puna run` in a terminal, as fingers use it."""

import base64
from contextlib import contextmanager

import pytest
from tests.e2e.server import MODELS, PUNA
from tests.e2e.terminal import CTRL_C, CTRL_D, UP, terminal

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PROMPT = r">>> "


@pytest.fixture
def repl(server, tmp_path):
    server.upload("typed", MODELS / "scripted.gguf", template="{{ .Prompt }}")

    @contextmanager
    def run(model, *flags):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        with terminal([PUNA, "run", model, *flags], PUNA_GRPC_HOST=server.grpc, HOME=str(home)) as shown:
            shown.expect(PROMPT)
            yield shown

    return run


def test_a_conversation_with_commands(repl):
    with repl("llamita", "--think=false") as shown:
        for said, answered in (
            ("Why is the sky blue?", "blue.*\n"),
            ("/set parameter temperature 0", "Set parameter 'temperature' to '0'"),
            ("/set system You are Kuntur.", "Set system message."),
            ("/show system", r"\nYou are Kuntur\."),
            ("/show info", "architecture +llama"),
            ("/set nonsense", r"Unknown command '/set nonsense'"),
            ("/show nonsense", r"Unknown command '/show nonsense'"),
            ("/set parameter", "/set parameter num_ctx"),
            ("/show parameters", r"Parameters set here:\s+temperature +0"),
            ("/what", r"Unknown command '/what'\. Type /\? for help"),
            ("/?", "Explain a command"),
            ("/save kept", "Created new model 'kept'"),
            ("/clear", "Cleared session context"),
            ("/load nowhere", "Couldn't find model 'nowhere'"),
            ("/load kept", "Loading model 'kept'"),
            ("/show system", r"\nYou are Kuntur\."),
            ("/show parameters", r"Parameters set here:\s+temperature +0"),
        ):
            shown.enter(said)
            shown.expect(answered)
            shown.expect(PROMPT)
        shown.enter("/bye")
        assert shown.ended() == 0


def test_lines_in_quotes_and_lines_of_before(repl):
    with repl("typed") as shown:
        shown.enter('"""one')
        shown.expect(r"\.\.\. ")
        shown.enter('a"""')  # the last character picks what is answered
        shown.expect("Hello, world!")
        shown.expect(PROMPT)
        shown.press(UP + UP)
        shown.enter("")
        shown.expect(r"\.\.\. ")
        shown.enter('"""')
        shown.expect(PROMPT)
        shown.enter("second a")
        shown.expect("Hello, world!")
        shown.expect(PROMPT)
        shown.enter("/bye")
        assert shown.ended() == 0
    with repl("typed") as shown:
        shown.press(UP + UP)  # over /bye
        shown.expect("second a")
        shown.enter("")
        shown.expect("Hello, world!")


def test_ctrl_c_stops_the_answer_and_not_the_program(repl):
    with repl("typed") as shown:
        shown.enter("without end b")
        shown.expect("w39 w0 w1")
        shown.press(CTRL_C)
        shown.expect(PROMPT)
        shown.press(CTRL_C)
        shown.expect(r"Use Ctrl \+ d or /bye to exit\.")
        shown.enter("and on a")
        shown.expect("Hello, world!")
        shown.expect(PROMPT)
        shown.press(CTRL_D)
        assert shown.ended() == 0


def test_what_is_typed_ahead_is_asked_next(repl):
    with repl("typed") as shown:
        shown.enter("without end b")
        shown.expect("w39 w0 w1")
        shown.press(CTRL_C + "second a\r")
        shown.expect("Hello, world!")
        shown.expect(PROMPT)
        shown.enter("/bye")
        assert shown.ended() == 0


def test_lines_that_are_typed_while_it_starts_are_asked(server, tmp_path):
    server.upload("typed", MODELS / "scripted.gguf", template="{{ .Prompt }}")
    with terminal([PUNA, "run", "typed"], PUNA_GRPC_HOST=server.grpc, HOME=str(tmp_path)) as shown:
        shown.press("early a\nsecond ")
        shown.expect(">>> early a")
        shown.expect("Hello, world!")
        shown.expect(PROMPT + "second")
        shown.enter("a")
        shown.expect("Hello, world!")
        shown.expect(PROMPT)


def test_words_are_not_parted_at_the_edge(repl):
    with repl("typed") as shown:
        shown.enter("without end b")
        text = shown.expect(r"(?s)w0 w1 .*w39 w0 ")[0]
        shown.press(CTRL_C)
        assert "\n" in text
        shown.expect(PROMPT)
        shown.enter("/set nowordwrap")
        shown.expect("Set 'nowordwrap' mode")
        shown.expect(PROMPT)
        shown.enter("without end b")
        assert "\n" not in shown.expect(r"(?s)w0 w1 .*w39 w0 ")[0]
        shown.press(CTRL_C)
        shown.expect(PROMPT)


def test_a_file_is_hashed_and_sent_under_ones_eyes(server, tmp_path):
    (tmp_path / "kid.gguf").write_bytes((MODELS / "scripted.gguf").read_bytes() + bytes(12_000_000))
    command = [PUNA, "create", "kid", "--gguf", str(tmp_path / "kid.gguf")]
    with terminal(command, PUNA_GRPC_HOST=server.grpc) as shown:
        shown.expect(r"hashing kid\.gguf.*12\.7/12\.7 MB")
        assert shown.ended() == 0
        shown.expect(r"using kid\.gguf|uploading kid\.gguf.*12\.7/12\.7 MB")
    assert server.ask("/api/delete", {"model": "kid"}, method="DELETE")[0] == 200


def test_a_picture_by_its_path(repl, tmp_path):
    (tmp_path / "a picture.png").write_bytes(PNG)
    with repl("typed") as shown:
        shown.enter(f"What is this? {tmp_path}/a\\ picture.png")
        shown.expect(f"Added image '{tmp_path}/a picture.png'")
        shown.expect("Error: ")  # this model sees nothing, and says so
        shown.expect(PROMPT)
        shown.enter("and on a")
        shown.expect("Hello, world!")


def test_progress_is_a_bar_with_speed_in_a_terminal(server, tmp_path):
    (tmp_path / "kid.gguf").write_bytes((MODELS / "scripted.gguf").read_bytes() + bytes(12_000_000))
    command = [PUNA, "import", str(tmp_path / "kid.gguf"), "--link", "copy", "--replace"]
    with terminal(command, PUNA_GRPC_HOST=server.grpc) as shown:
        shown.expect("imported kid:latest")
        shown.expect(r"reading kid\.gguf.*12\.7/12\.7 MB.* [\d.]+ [kMG]B/s 0:00:00")
        assert shown.ended() == 0
    assert server.ask("/api/delete", {"model": "kid"}, method="DELETE")[0] == 200
