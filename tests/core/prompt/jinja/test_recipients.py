from puna.messages import Tool
from puna.prompt.jinja.recipients import RecipientParser

CALL = (
    ' to=get<|message|><atem:function_calls>\n<atem:invoke name="get">\n'
    '<atem:parameter name="city">Oslo</atem:parameter>\n'
    "</atem:invoke>\n</atem:function_calls><|eot|>"
)


def test_calls_come_with_the_end_and_have_ids():
    parser = RecipientParser([Tool(name="get")])
    assert parser.feed(CALL).calls == ()
    (call,) = parser.finish().calls
    assert (call.name, call.arguments, len(call.id)) == ("get", '{"city":"Oslo"}', 32)


def test_a_call_that_cannot_be_read_is_content():
    parser = RecipientParser([Tool(name="get")])
    assert parser.feed(" to=get<|message|>get it<|eot|>").content == "get it"
    assert parser.finish().calls == ()


def test_the_beginning_of_the_answer_is_read_even_if_nothing_follows():
    parser = RecipientParser([], " to=self<|message|>Hm")
    assert parser.finish().thinking == "Hm"
