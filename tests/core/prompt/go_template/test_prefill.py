import pytest

from puna.go.template.parser import parse
from puna.prompt.go_template.prefill import cut_after_response

DATA = {"Prompt": "p", "Response": "r", "System": "s"}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("{{ .Prompt }}>{{ .Response }}<end>", "p>r"),
        ("{{ if .Response }}[{{ .Response }}]{{ end }}<end>", "[r"),
        ("{{ if .System }}{{ .System }}|{{ end }}{{ .Prompt }}", "s|pr"),
        ("{{ if .Prompt }}a{{ else }}b{{ end }}{{ .Response }}c", "ar"),
    ],
)
def test_a_template_ends_with_its_first_response(text: str, written: str) -> None:
    cut = cut_after_response(parse(text))
    assert cut is not None
    assert cut.execute(DATA) == written


def test_an_else_after_the_response_cannot_be_cut() -> None:
    assert cut_after_response(parse("{{ if .Prompt }}{{ .Response }}{{ else }}b{{ end }}")) is None
