"""The contract's errors keep their kind, text and numbers on the way to the core."""

import pytest

from puna.backend import BackendError, InvalidRequestError, PromptTooLongError, UnsupportedError
from puna.errors import BackendFailedError
from puna.host.convert import error_from_wire, error_to_wire


@pytest.mark.parametrize("error", [InvalidRequestError("no such id"), UnsupportedError("no images")])
def test_a_refusal_keeps_its_kind_and_text(error):
    got = error_from_wire(error_to_wire(error))
    assert (type(got), str(got)) == (type(error), str(error))


def test_a_prompt_that_is_too_long_keeps_its_numbers():
    got = error_from_wire(error_to_wire(PromptTooLongError(9, 8)))
    assert isinstance(got, PromptTooLongError)
    assert (got.prompt_tokens, got.context_length) == (9, 8)


def test_every_other_error_is_the_backends_fault():
    got = error_from_wire(error_to_wire(BackendError("odd")))
    assert (type(got), str(got)) == (BackendFailedError, "odd")
