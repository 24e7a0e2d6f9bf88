import inspect

import pytest

from puna_client import AsyncClient, Client, operations
from puna_client.operations import chat, embed, generate
from puna_client.v1.embed_pb2 import VECTOR_ENCODING_FLOAT32_LE
from puna_client.v1.message_pb2 import ToolChoice
from puna_client.v1.options_pb2 import RequestOptions

OFFERED = [
    name
    for name, each in vars(operations).items()
    if inspect.isfunction(each) and each.__module__ == operations.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("name", OFFERED)
def test_both_clients_offer_each_call_with_its_arguments(name):
    call = getattr(operations, name)
    for kind in (AsyncClient, Client):
        method = getattr(kind, name)
        assert inspect.signature(method).parameters.keys() == inspect.signature(call).parameters.keys()
        assert method.__doc__ == call.__doc__


def test_the_clients_have_the_same_public_names():
    async_names, names = ({each for each in dir(kind) if not each.startswith("_")} for kind in (AsyncClient, Client))
    assert async_names == names
    assert len(OFFERED) >= 10


def test_options_are_copied_and_completed():
    given = RequestOptions()
    given.sampling.seed = 7
    request = chat("m", "Hi", schema={"type": "object"}, options=given).request
    assert request.options.sampling.seed == 7
    assert request.options.constraint.json_schema == '{"type": "object"}'
    assert not given.HasField("constraint")


def test_progress_is_asked_for_only_if_it_is_taken():
    """Without it a call can be repeated."""
    assert chat("m", "Hi").request.options.omit_progress
    assert not generate("m", "Hi", on_progress=print).request.options.omit_progress


def test_a_choice_is_a_mode_or_a_tool():
    assert chat("m", "Hi").request.tool_choice == ToolChoice()
    assert chat("m", "Hi", tool_choice="required").request.tool_choice.mode == ToolChoice.MODE_REQUIRED
    assert chat("m", "Hi", tool_choice="get_weather").request.tool_choice.tool_name == "get_weather"


def test_vectors_are_asked_for_in_packed_form():
    request = embed("m", "Hi").request
    assert (list(request.inputs), request.encoding) == (["Hi"], VECTOR_ENCODING_FLOAT32_LE)
