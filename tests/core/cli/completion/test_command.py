import pytest

from puna.cli.main import main
from puna.cli.parsers import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell(shell, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "__complete" in text
    assert f"puna completion {shell}" in text


def test_candidates_are_lines_of_words_and_descriptions(capsys):
    assert main(["__complete", "version", ""]) == 0
    kind, *lines = capsys.readouterr().out.splitlines()
    assert kind == "words"
    assert [line.split("\t")[0] for line in lines] == ["--help", "--config"]


def test_a_broken_configuration_file_gives_no_names(tmp_path, capsys):
    (tmp_path / "puna.toml").write_text("nonsense = ")
    for words in (["--config", str(tmp_path / "puna.toml")], [f"--config={tmp_path / 'puna.toml'}"]):
        assert main(["__complete", *words, "run", ""]) == 0
        assert capsys.readouterr() == ("words\n", "")
