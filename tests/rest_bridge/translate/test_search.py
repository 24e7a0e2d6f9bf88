import pytest

from puna_client.v1 import message_pb2
from puna_rest.translate import search


def call(name, arguments="{}"):
    return message_pb2.ToolCall(name=name, arguments_json=arguments)


def test_the_first_search_counts():
    first = call("web_search", '{"query":"a"}')
    assert search.asked_for((call("f"), first, call("web_search"))) is first
    assert search.asked_for((call("f"),)) is None
    assert search.asked_for(()) is None


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ('{"query": "cats"}', "cats"),
        ('{"query": 3}', ""),
        ('{"q": "cats"}', ""),
        ('["query"]', ""),
        ("", ""),
        ("{", ""),
        ("[" * 100_000, ""),
    ],
)
def test_the_query_of_a_model_that_writes_what_it_likes(arguments, query):
    assert search.query_of(call("web_search", arguments)) == query
