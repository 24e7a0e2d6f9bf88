"""The configuration file: every mistake is named with its line."""

import pytest

from puna.cli.main import main
from puna.configuration import ConfigurationError, load

GOOD = """\
# A server of a team.
host = "0.0.0.0"
keep_alive = "10m"
load_timeout = 60
max_queue = 100
noprune = true
debug = 1
expose = ["chat", "embed"]

[limits]
max_stops = 7
body_timeout = 2.5

[backends.llama_cpp]
kernels = false

[secrets]
upstream = { env = "UPSTREAM_KEY" }
other = { file = "/run/secrets/other" }
plain = "text"
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config.toml"


def mistakes(file, text):
    file.write_text(text)
    with pytest.raises(ConfigurationError) as failed:
        load(file)
    return [(each.line, each.text) for each in failed.value.mistakes]


def test_a_file_without_mistakes(file):
    file.write_text(GOOD)
    found = load(file)
    assert found.variables == {
        "OLLAMA_HOST": "0.0.0.0",
        "OLLAMA_KEEP_ALIVE": "10m",
        "OLLAMA_LOAD_TIMEOUT": "60",
        "OLLAMA_MAX_QUEUE": "100",
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_DEBUG": "1",
        "PUNA_EXPOSE": "chat,embed",
    }
    assert found.limits == {"max_stops": 7, "body_timeout": 2.5}
    assert found.backends == {"llama_cpp": {"kernels": False}}
    assert set(found.secrets) == {"upstream", "other", "plain"}
    assert "text" not in repr(found)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("\nmax_queu = 5", 2, "max_queu: there is no such setting; perhaps max_queue"),
        ("zzz = 5", 1, "zzz: there is no such setting"),
        ("# x\n\nmax_queue = '5'", 3, "max_queue: it must be a whole number, not negative"),
        ("max_queue = -5", 1, "max_queue: it must be a whole number, not negative"),
        ("max_queue = true", 1, "max_queue: it must be a whole number, not negative"),
        ("noprune = 1", 1, "noprune: it must be true or false"),
        ("keep_alive = 'soon'", 1, "keep_alive: it must be a duration"),
        ("keep_alive = true", 1, "keep_alive: it must be a duration"),
        ("origins = 'http://a'", 1, "origins: it must be a list of texts without commas"),
        ("origins = ['a,b']", 1, "origins: it must be a list of texts without commas"),
        ("log_format = 'xml'", 1, "log_format: it must be text or json"),
        ("expose = ['chat', 'everything']", 1, "expose: there is no 'everything'; the names are generate, chat"),
        ("host = 5", 1, "host: it must be a text"),
        ("api_key = 'x'", 1, "api_key: there is no such setting"),
        ("[limits]\nmax_stop = 1", 2, "limits.max_stop: there is no such limit; perhaps max_stops"),
        ("[limits]\nmax_stops = 'x'", 2, "limits.max_stops: it must be a number"),
        ("[limits]\nmax_stops = nan", 2, "limits.max_stops: it must be a number"),
        ("limits.max_stops = -1", 1, "limits.max_stops: it must be a number"),
        ("limits = 5", 1, "limits: it must be a table"),
        ("[backends]\nllama_cpp = 5", 2, "backends.llama_cpp: it must be a table of the backend's options"),
        ("[secrets]\na = 5", 2, "secrets.a: it must be a text"),
        ("[secrets]\na = { file = 'x', env = 'y' }", 2, "secrets.a: it must be a text"),
        ("[secrets.a]\nwho = 'x'", 1, "secrets.a: it must be a text"),
        ("host = 'a'\nhost = 'b'", 2, "Cannot overwrite a value"),
        ("host = \n", 1, "Invalid value"),
        ("[limits", 1, "Expected ']'"),
    ],
)
def test_a_mistake_is_named_with_its_line(file, text, line, said):
    ((found, message),) = mistakes(file, text)
    assert found == line
    assert message.startswith(said)


def test_all_mistakes_are_told_at_once_in_the_order_of_lines(file):
    found = mistakes(file, "host = 5\nzz = 1\n[limits]\nyy = 2\n[backends]\nx = 3\n")
    assert [line for line, _ in found] == [1, 2, 4, 6]


def test_bytes_that_are_no_text(file):
    file.write_bytes(b"host = 'a'\n# \xff\n")
    with pytest.raises(ConfigurationError, match=r"config\.toml:2: it is not valid UTF-8"):
        load(file)


def test_the_command_says_yes_or_names_each_mistake(file, capsys):
    file.write_text(GOOD)
    assert main(["config", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: no mistakes\n"
    file.write_text("host = 5\nzz = 1\n")
    assert main(["--config", str(file), "config", "check"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[0] for line in err] == [f"{file}:1", f"{file}:2"]
    assert main(["config", "check", str(file.with_name("none.toml"))]) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[backends.nobody]\nx = 1", "backends.nobody: backend 'nobody' is not installed"),
        ("[backends.llama_cpp]\nkernles = true", "backend 'llama_cpp' has no option 'kernles'"),
        ("[backends.llama_cpp]\nkernels = 5", "option 'kernels'"),
        ("[model.a]\nbackend = 'nobody'", "model.a.backend: backend 'nobody' is not installed"),
        ("[model.a.options]\nnum_thread = 513", "model.a.options.num_thread: it must be at most 512"),
        ("tls_certificate = '/none.pem'\ntls_key = '/none.key'", "tls_certificate: /none.pem: No such file"),
        ("tls_key = '/none.key'", "needs both"),
    ],
)
def test_the_command_looks_at_what_the_file_names(file, capsys, text, said):
    file.write_text(text)
    assert main(["config", "check", str(file)]) == 1
    assert said in capsys.readouterr().err
