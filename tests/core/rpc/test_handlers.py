import grpc

from puna.rpc.handlers import wrapped


def test_the_behaviour_of_each_kind_of_method_is_wrapped_and_nothing_else_changes():
    handlers = {
        "One": grpc.unary_unary_rpc_method_handler("one", str, bytes),
        "Two": grpc.stream_stream_rpc_method_handler("two"),
    }
    found = wrapped(handlers, lambda name, behaviour: f"{name} {behaviour}")
    assert (found["One"].unary_unary, found["Two"].stream_stream) == ("One one", "Two two")
    assert (found["One"].request_deserializer, found["One"].response_serializer) == (str, bytes)
    assert found["One"].stream_stream is None
    assert (found["One"].response_streaming, found["Two"].request_streaming) == (False, True)
