from array import array

from puna_client.answers import Delta, ToolCall
from puna_client.interop.v1.health_pb2 import HealthCheckResponse
from puna_client.readers import AnswerReader, EmbeddingsReader, HealthReader
from puna_client.v1.chat_pb2 import ChatDelta, StreamChatResponse
from puna_client.v1.embed_pb2 import EmbedResponse, StreamVectorsResponse, Vector
from puna_client.v1.generate_pb2 import GenerateDelta, StreamGenerateResponse
from puna_client.v1.message_pb2 import ToolCall as WireToolCall
from puna_client.v1.usage_pb2 import Progress, TokenLogprob, Usage


def test_deltas_are_handed_out_and_joined():
    reader = AnswerReader(None)
    call = WireToolCall(id="c1", name="add", arguments_json='{"a": 12345678901234567890}')
    first = StreamChatResponse(deltas=[ChatDelta(thinking="hm"), ChatDelta(content="1 ")])
    last = StreamChatResponse(deltas=[ChatDelta(content="2", tool_calls=[call])])
    last.done.finish.usage.output_tokens = 3
    called = ToolCall("add", {"a": 12345678901234567890}, "c1")
    assert reader.read(first) == [Delta(thinking="hm"), Delta("1 ")]
    assert reader.read(last) == [Delta("2", tool_calls=(called,))]
    answer = reader.result()
    assert (answer.text, answer.thinking, answer.tool_calls) == ("1 2", "hm", [called])
    assert answer.finish.usage.output_tokens == 3
    assert (answer.message.role, answer.message.content, answer.message.thinking) == ("assistant", "1 2", "hm")
    assert list(answer.message.tool_calls) == [call]


def test_generated_text_is_read_alike():
    reader = AnswerReader(None)
    delta = GenerateDelta(text="[1, 2]", logprobs=[TokenLogprob(token_id=7)])
    assert [each.text for each in reader.read(StreamGenerateResponse(deltas=[delta]))] == ["[1, 2]"]
    assert reader.result().json() == [1, 2]
    assert [each.token_id for each in reader.result().logprobs] == [7]


def test_progress_goes_to_its_function():
    told = []
    progress = Progress(queued=Progress.Queued(position=3))
    assert AnswerReader(told.append).read(StreamChatResponse(progress=progress)) == []
    assert told == [progress]
    assert AnswerReader(None).read(StreamChatResponse(progress=progress)) == []


def test_vectors_are_arrays_of_floats_in_the_order_of_the_inputs():
    reader = EmbeddingsReader()
    parts = [
        EmbedResponse(vectors=[Vector(packed=b"\x00\x00\x80\x3f\x00\x00\x00\xc0")]),
        EmbedResponse(vectors=[Vector(packed=b"\x00\x00\x00\x3f")], usage=Usage(prompt_tokens=5)),
    ]
    read = [each for part in parts for each in reader.read(StreamVectorsResponse(part=part))]
    assert read == reader.result().vectors == [array("f", [1, -2]), array("f", [0.5])]
    assert memoryview(read[0]).format == "f"
    assert reader.result().usage.prompt_tokens == 5


def test_health_is_whether_the_server_takes_requests():
    reader = HealthReader()
    assert [reader.read(HealthCheckResponse(status=status)) for status in (2, 1, 3)] == [[False], [True], [False]]
    assert reader.result() is False
