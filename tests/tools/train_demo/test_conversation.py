from train_demo.conversation import Conversation, Tool, Turn, go_json, prompt, segments
from train_demo.skills import conversation
from train_demo.words import Random

WEATHER = Tool("get_weather", "Weather", (("city", "string"),))
CALL = Turn("assistant", "", "The tool get_weather fits.", (("get_weather", {"city": "Bern"}),))


def test_a_prompt_ends_where_the_model_shall_speak() -> None:
    assert prompt(Conversation([Turn("user", "Hi")])) == "<|user|>Hi<|assistant|>"
    assert (
        prompt(Conversation([Turn("user", "Hi")], "S", (), think=True)) == "<|system|>S<|user|>Hi<|think|><|assistant|>"
    )


def test_tools_calls_and_results_stand_in_the_prompt() -> None:
    turns = [Turn("user", "Weather?"), CALL, Turn("tool", "sunny")]
    assert prompt(Conversation(turns, "", [WEATHER], think=True)) == (
        "<|tools|>get_weather( city:string ) Weather\n<|user|>Weather?<|assistant|>"
        "<think>The tool get_weather fits.</think><tool_call>"
        '{"name":"get_weather","arguments":{"city":"Bern"}}</tool_call><|tool|>sunny<|think|><|assistant|>'
    )


def test_thoughts_before_the_last_question_are_forgotten() -> None:
    turns = [Turn("user", "A"), Turn("assistant", "B", "b"), Turn("user", "C"), Turn("assistant", "D", "d")]
    assert prompt(Conversation(turns, think=True)) == (
        "<|user|>A<|assistant|>B<|user|>C<|think|><|assistant|><think>d</think>D"
    )


def test_only_what_the_model_says_is_learned() -> None:
    made = segments(Conversation([Turn("user", "A"), Turn("assistant", "B")]))
    assert [(s.text, s.learned) for s in made] == [("<|user|>A", False), ("<|assistant|>", False), ("B", True)]


def test_thoughts_that_nobody_asked_for_are_not_learned() -> None:
    made = segments(Conversation([Turn("user", "A"), CALL, Turn("tool", "x"), Turn("assistant", "y")]))
    assert [s.learned for s in made if s.text.startswith("<think>")] == [False]


def test_json_is_written_as_go_writes_it() -> None:
    assert go_json({"b": "<&>", "a": [1, True]}) == '{"a":[1,true],"b":"\\u003c\\u0026\\u003e"}'


def test_the_same_seed_makes_the_same_conversations() -> None:
    first, second = ([prompt(conversation(Random(f"7/{i}"))) for i in range(50)] for _ in range(2))
    assert first == second
