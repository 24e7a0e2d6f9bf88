import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.cli.errors import CommandError
from puna.cli.modelfile import Command, check_requires, decode, is_modelfile, parameters, parse
from puna.models.modelfile import quoted


def test_commands_of_every_kind():
    text = (
        "# a comment\n"
        "FROM llama3\n"
        "  # another\n"
        "parameter temperature 0.5\n"
        'TEMPLATE """{{ .Prompt }}\n# no comment\n"""\n'
        "SYSTEM You are # not a comment\n"
        "MESSAGE user Hi there\n"
        'LICENSE "MIT\n'
        'really"\n'
        "REQUIRES v0.14.0"
    )
    assert parse(text) == [
        Command("from", "llama3"),
        Command("temperature", "0.5", is_parameter=True),
        Command("template", "{{ .Prompt }}\n# no comment\n"),
        Command("system", "You are # not a comment"),
        Command("message", "Hi there", role="user"),
        Command("license", "MIT\nreally"),
        Command("requires", "v0.14.0"),
    ]


@pytest.mark.parametrize("text", ['FROM x\nSYSTEM "one"', 'FROM x\nSYSTEM """one"""', "FROM x\nSYSTEM   one  "])
def test_quotes_are_removed_and_the_rest_is_trimmed(text):
    assert parse(text)[1] == Command("system", "one")


def test_there_are_no_escapes_and_single_quotes_mean_nothing():
    assert parse(r"FROM x" + "\n" + r"SYSTEM 'a\nb'")[1].value == r"'a\nb'"


def test_a_quoted_value_swallows_lines_until_one_ends_with_its_quote():
    commands = parse('FROM x\nPARAMETER stop "a" b\nSYSTEM "c"\n')
    assert commands[1] == Command("stop", 'a" b\nSYSTEM "c', is_parameter=True)


def test_every_character_is_kept():
    assert parse("FROM x\nSYSTEM a\u00a0b\u200dc\td\u2028e")[1].value == "a\u00a0b\u200dc\td\u2028e"


@given(st.lists(st.text('a"<\n\t \u200dEND#', min_size=1, max_size=9), min_size=1, max_size=4))
def test_show_and_parse_are_inverse(values):
    text = "FROM x\n" + "".join(f"PARAMETER stop {quoted(each)}\n" for each in values)
    assert [each.value for each in parse(text)[1:]] == values


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("SYSTEM x", "no FROM line"),
        (
            "FROM x\nBOGUS y",
            '(line 2): command must be one of "from", "license", "template", "system", "adapter", "draft", "renderer", '
            '"parser", "parameter", "message", or "requires"',
        ),
        ("FROM x\nMESSAGE robot hi", '(line 2): message role must be one of "system", "user", or "assistant"'),
        ('FROM x\nSYSTEM "open', "unexpected EOF"),
        ("FROM x\nSYSTEM ", "unexpected EOF"),
        ("FROM x\nPARAMETER top_k\n", "unexpected EOF: top_k"),
    ],
)
def test_errors_have_the_reference_s_words(text, error):
    with pytest.raises(CommandError) as caught:
        parse(text)
    assert str(caught.value) == error


def test_a_command_followed_by_a_newline_is_complained_about_on_the_next_line():
    with pytest.raises(CommandError, match=r"\(line 3\): command must be one of"):
        parse("FROM x\nSYSTEM\nfoo")


def test_parameters_are_typed_and_stop_collects():
    commands = [
        Command("num_ctx", "4096", is_parameter=True),
        Command("stop", "a", is_parameter=True),
        Command("temperature", "0.5", is_parameter=True),
        Command("stop", "b", is_parameter=True),
        Command("temperature", "1", is_parameter=True),
        Command("use_mmap", "T", is_parameter=True),
        Command("system", "no parameter"),
    ]
    assert parameters(commands) == {"num_ctx": 4096, "temperature": 1.0, "use_mmap": True, "stop": ["a", "b"]}


def test_deprecated_parameters_are_said_and_skipped(capsys):
    assert parameters([Command("mirostat", "1", is_parameter=True)]) == {}
    assert capsys.readouterr().out == "warning: parameter mirostat is deprecated\n"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("num_ctx", "abc", "invalid int value [abc]"),
        ("top_p", "abc", "invalid float value [abc]"),
        ("use_mmap", "yes", "invalid bool value [yes]"),
        ("foo", "1", "unknown parameter 'foo'"),
    ],
)
def test_bad_parameters(name, value, error):
    with pytest.raises(CommandError) as caught:
        parameters([Command(name, value, is_parameter=True)])
    assert str(caught.value) == error


def test_utf_16_is_read():
    assert decode("FROM é".encode("utf-16")) == "FROM é"
    assert decode(b"\xef\xbb\xbfFROM x") == "FROM x"


def test_requires_is_a_version():
    assert check_requires("v0.14.0") == "0.14.0"
    with pytest.raises(CommandError):
        check_requires("soon")


def test_puna_s_own_commands():
    text = 'UPSTREAM a/b:c\nbackend away\nBACKEND_FORMAT f\nBACKEND_OPTION a.b-1 "two words"\nCAPABILITY tools\n'
    assert parse(text) == [
        Command("upstream", "a/b:c"),
        Command("backend", "away"),
        Command("backend_format", "f"),
        Command("backend_option", "two words", key="a.b-1"),
        Command("capability", "tools"),
    ]
    assert parse("BACKEND echo")[0].value == "echo"


def test_a_model_has_one_source():
    with pytest.raises(CommandError, match="either FROM or UPSTREAM"):
        parse("FROM x\nUPSTREAM y\nBACKEND z")


@pytest.mark.parametrize("line", ["BACKENDS x", "BACKEND_ x", "BACKEND_OPTIONS a b", "UPSTREAM_X y", "_BACKEND x"])
def test_misspelt_commands_have_the_error_of_any_other(line):
    with pytest.raises(CommandError, match=r"^\(line 2\): command must be one of"):
        parse(f"FROM x\n{line}")


@pytest.mark.parametrize("text", ["BACKEND_OPTION", "BACKEND_OPTION a", "BACKEND_OPTION a ", "BACKEND"])
def test_a_line_without_a_value(text):
    with pytest.raises(CommandError):
        parse(f"FROM x\n{text}")


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (b"FROM x", True),
        (b"# mine\n\n  from x", True),
        (b"SYSTEM hi\nUPSTREAM x", True),
        (b"SYTSEM hi\nFROM x", True),
        (b"import x\nfrom x import y", False),
        ("FROM x".encode("utf-16"), False),
        (b'{"FROM": "x"}', False),
        (b"GGUF\0FROM x\n", False),
        (b"", False),
        (bytes(range(256)), False),
    ],
)
def test_modelfiles_are_told_from_files_of_models(data, is_one):
    assert is_modelfile(data) is is_one
