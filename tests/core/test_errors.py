import json
import re

import pytest

from puna import errors
from puna.errors import MediaUnsupportedError, PunaError, StoreFailedError, TemplateRefusedError, ToolsRefusedError


def classes(base=PunaError):
    """The class and its subclasses in the module; tests and plugins may define others."""
    children = [each for each in base.__subclasses__() if each.__module__ == errors.__name__]
    return {base}.union(*map(classes, children))


def test_the_tree_in_the_docstring_has_the_classes_in_their_places():
    stack, found = [PunaError.__name__], {}
    for line in errors.__doc__.splitlines():
        if match := re.match(r"((?:│   |    )*)[├└]── (\w+)", line):
            depth = len(match[1]) // 4 + 1
            del stack[depth:]
            found[match[2]] = stack[-1]
            stack.append(match[2])
    listed = {each.__name__: each.__base__.__name__ for each in classes() if each is not PunaError}
    assert found == listed


def test_reasons_are_what_programs_may_match():
    assert all(re.fullmatch(r"[A-Z][A-Z_]*", each.reason) for each in classes())


@pytest.mark.parametrize(
    "error", [TemplateRefusedError('say "hi"\n'), ToolsRefusedError("no"), MediaUnsupportedError()]
)
def test_texts_of_ollamas_runner_are_json(error):
    inner = json.loads(str(error))["error"]
    assert inner.keys() == {"code", "message", "type"}


def test_an_error_of_the_disk_names_the_file_and_reads_as_a_sentence():
    error = StoreFailedError(OSError(28, "No space left on device", "/models/x"))
    assert str(error) == "/models/x: no space left on device"
