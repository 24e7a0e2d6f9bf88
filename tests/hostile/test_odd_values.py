"""Every field of every call, set to values that no honest client sends: each gets an answer or a clear refusal.

The fields come from the descriptors, so that a new field is attacked from its first day.
"""

import json
import math
import struct
import urllib.error
import urllib.request

import grpc
import pytest
from google.protobuf import descriptor, json_format
from google.protobuf.message_factory import GetMessageClass
from tests.e2e.server import MODELS, serving
from tests.hostile.bounds import ping, resident

from puna_client.v1 import (
    batch_pb2,
    chat_pb2,
    embed_pb2,
    generate_pb2,
    models_pb2,
    rank_pb2,
    server_pb2,
    tokenize_pb2,
)
from puna_rest.bodies import anthropic, native, openai, responses

SECONDS = 10
"""In which every call must end."""
FEW = {"sampling": {"max_output_tokens": 2}}
USER = [{"role": "user", "content": "Hi"}]
HONEST = {
    "Generate": {"model": "scripted", "text": "Hi", "options": FEW},
    "StreamGenerate": {"model": "scripted", "text": "Hi", "options": FEW},
    "Chat": {"model": "scripted", "messages": USER, "options": FEW},
    "StreamChat": {"model": "scripted", "messages": USER, "options": FEW},
    "Embed": {"model": "embedder", "inputs": ["a"]},
    "StreamEmbed": {"config": {"model": "embedder"}},
    "Rerank": {"model": "embedder", "query": "a", "documents": ["b"]},
    "Score": {"model": "scripted", "text": "a", "continuations": [{"text": "b"}, {"token_ids": {"ids": [5]}}]},
    "Tokenize": {"model": "scripted", "text": "a"},
    "CountTokens": {"chat": {"model": "tooled", "messages": USER}},
    "Detokenize": {"model": "scripted", "token_ids": [5]},
    "LoadModel": {"name": "scripted"},
    "EstimateModel": {"name": "scripted"},
    "GetModel": {"name": "scripted"},
    "PullModel": {"name": "127.0.0.1:1/a/b:c", "insecure": True},
    "PushModel": {"name": "127.0.0.1:1/a/b:c", "insecure": True},
    "CreateModel": {"name": "made", "from_model": "scripted"},
    "CopyModel": {"source": "scripted", "destination": "copied"},
    "DeleteModel": {"name": "nowhere"},
    "ImportModels": {"paths": ["/nowhere"]},
    "UploadBlob": {"config": {"digest": "sha256:" + "0" * 64}},
    "StatBlob": {"digest": "sha256:" + "0" * 64},
    "WatchLoad": {"interval": "3600s"},
}
SHARED = {"puna.v1.RequestOptions": "Generate", "puna.v1.RuntimeOptions": "LoadModel"}
"""Messages that one function reads for every call: their fields are attacked in this one."""

DEEP = 100_000
DEEP_LIST, DEEP_OBJECT = "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP
TEXTS = (
    "",
    "\0",
    " ",
    "x" * 20_000,
    "../" * 50 + "etc/passwd",
    "/dev/zero",
    "é\u202e\ufffe",
    "{{",
    "%s%n" * 100,
    "a:b:c/d",
)
JSONS = (
    *("null", "1", '"a"', "[]", "[1]", "true", "{", "nonsense", "NaN", '{"a":NaN}', '{"a":1e999}', '{"a":-Infinity}'),
    *(DEEP_LIST, DEEP_OBJECT, "[" * DEEP, '{"type":' + DEEP_OBJECT + "}", '{"properties":{"a":' + DEEP_OBJECT + "}}"),
    *(
        '{"a":' + "9" * 6000 + "}",
        '{"\\ud800":"\\udfff"}',
        '{"type":1,"properties":[],"required":{}}',
        '{"properties":{"a":1}}',
    ),
    *('{"properties":{"a":{"type":{"b":[null]}}}}', "\ufeff{}", '{"a":"' + "x" * 20_000 + '"}'),
)
NUMBERS = {
    "int": (0, 1, -1, 7, 1000, 10**6, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63), 2**64 - 1),
    "float": (math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 3e38, -3e38, 1e-45, 1e300),
}
OPTIONS = (
    *(
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "draft_num_predict",
        "num_keep",
        "seed",
        "num_predict",
    ),
    *("top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature", "repeat_penalty", "presence_penalty"),
    *("frequency_penalty", "stop", "use_mmap"),
)
OPTION_VALUES = (
    *(
        "0",
        "-1",
        "1",
        "1e300",
        "-1e300",
        "1e999",
        "NaN",
        "-Infinity",
        "9" * 6000,
        str(2**31),
        str(2**40),
        str(2**63),
        str(-(2**80)),
    ),
    *("0.5", "true", '"a"', "null", "[]", "{}", '[""]', '["a",1]', DEEP_LIST, DEEP_OBJECT, '["' + "x" * 100_000 + '"]'),
)
HARMLESS = {
    *(grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED),
    *(grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED),
    *(grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.ALREADY_EXISTS),
}
MAY_BE_UNREACHABLE = {"PullModel", "PushModel", "CreateModel"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server whose registry is not there."""
    home = tmp_path_factory.mktemp("home")
    proxy = {"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"}
    with serving(home / "models", **proxy) as running:
        for name in ("scripted", "embedder", "jinja-tools"):
            running.upload(name, MODELS / f"{name}.gguf")
        template = "{{ range .Messages }}{{ .Content }}{{ .ToolCalls }}{{ end }}{{ .Tools }}"
        running.json("/api/create", {"model": "tooled", "from": "scripted", "template": template, "stream": False})
        renderer = {"renderer": "qwen3-coder", "parser": "qwen3-coder"}
        running.json("/api/create", {"model": "coder", "from": "scripted", "stream": False} | renderer)
        yield running


def methods():
    for module in (batch_pb2, chat_pb2, embed_pb2, generate_pb2, models_pb2, rank_pb2, server_pb2, tokenize_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def called(channel, method, request):
    """Make a call to its end; return its status and the text of its error."""
    kinds = (GetMessageClass(method.input_type), GetMessageClass(method.output_type))
    way = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    stub = getattr(channel, way)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=kinds[0].SerializeToString,
        response_deserializer=kinds[1].FromString,
    )
    sent = iter([request]) if method.client_streaming else request
    try:
        answer = stub(sent, timeout=SECONDS)
        if method.name == "WatchLoad":
            next(answer)
            answer.cancel()
        elif method.server_streaming:
            for _ in answer:
                pass
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def values_of(field):
    """Return the odd values of a scalar field."""
    kinds = descriptor.FieldDescriptor
    match field.cpp_type:
        case kinds.CPPTYPE_STRING if field.type == kinds.TYPE_BYTES:
            return (b"", b"\0", b"\xff" * 1000, b"GGUF" * 10, b"\x89PNG\r\n\x1a\n")
        case kinds.CPPTYPE_STRING:
            return TEXTS + (JSONS if field.name.endswith("_json") or field.name == "json_schema" else ())
        case kinds.CPPTYPE_BOOL:
            return (False, True)
        case kinds.CPPTYPE_FLOAT | kinds.CPPTYPE_DOUBLE:
            return NUMBERS["float"]
        case kinds.CPPTYPE_ENUM:
            return (-1, 0, 1, 2, 3, 99, 2**31 - 1)
    bits, signed = {
        kinds.CPPTYPE_INT32: (31, True),
        kinds.CPPTYPE_INT64: (63, True),
        kinds.CPPTYPE_UINT32: (32, False),
        kinds.CPPTYPE_UINT64: (64, False),
    }[field.cpp_type]
    return tuple(each for each in NUMBERS["int"] if (-(2**bits) if signed else 0) <= each < 2**bits)


def odd(message, method, path=""):
    """Yield a name for each odd value, and a function that puts it into a message of this type."""
    for field in message.fields:
        where = f"{path}.{field.name}" if path else field.name
        if field.message_type is None:
            for value in values_of(field):
                if path != "options.runtime" or value not in (7, 1000, 10**6):  # each of them loads a model
                    yield f"{where} = {str(value)[:40]!r}", _setter(field, value)
        elif field.message_type.GetOptions().map_entry:
            yield from _odd_entries(field, where)
        elif SHARED.get(field.message_type.full_name, method) == method:
            for name, inner in odd(field.message_type, method, where):
                yield name, lambda target, field=field, inner=inner: inner(_inside(target, field))


def _odd_entries(field, where):
    key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
    names = ("llama_cpp", "scripted", "") if key.cpp_type == key.CPPTYPE_STRING else (0, -1, 2**31 - 1)
    for name in names:
        for each in values_of(value) + (JSONS if value.cpp_type == value.CPPTYPE_STRING else ()):
            shown = f"{where}[{name!r}] = {str(each)[:40]!r}"
            yield shown, lambda target, name=name, each=each: getattr(target, field.name).__setitem__(name, each)


def _setter(field, value):
    def put(target):
        if field.is_repeated:
            getattr(target, field.name).append(value)
        else:
            setattr(target, field.name, value)

    return put


def _inside(target, field):
    """Return a message within, made if need be; of a repeated field a further one."""
    inner = getattr(target, field.name)
    if field.is_repeated:
        return inner.add()
    inner.SetInParent()
    return inner


def faults(server, channel, cases):
    """Make every call of (name, method, request), and return those that did not end well."""
    found = []
    for name, method, request in cases:
        code, text = called(channel, method, request)
        allowed = HARMLESS | ({grpc.StatusCode.UNAVAILABLE} if method.name in MAY_BE_UNREACHABLE else set())
        if code not in allowed or "has terminated" in text:
            found.append(f"{method.name} {name}: {code.name} {text[:150]}")
    assert ping(server) < 2
    return found


@pytest.mark.parametrize("method", list(methods()), ids=lambda method: method.name)
def test_every_field_of_every_call(server, channel, method):
    before = resident(server)
    kind = GetMessageClass(method.input_type)
    honest = json_format.ParseDict(HONEST.get(method.name, {}), kind())

    def cases():
        for name, put in odd(method.input_type, method.name):
            request = kind.FromString(honest.SerializeToString())
            put(request)
            yield name, method, request

    assert faults(server, channel, cases()) == []
    assert resident(server) - before < 1 << 30


def odd_conversations():
    """Yield conversations with every odd JSON text in the places where it reaches templates."""
    for text in JSONS:
        call = {"name": "look", "arguments_json": text}
        tool = {"type": "function", "name": "look", "parameters_json": text, "items_json": text}
        yield f"tool {text[:40]!r}", {"messages": USER, "tools": [tool]}
        said = {"role": "assistant", "tool_calls": [call]}
        yield f"call {text[:40]!r}", {"messages": [*USER, said, *USER]}
        yield f"forced {text[:40]!r}", {"messages": USER, "tools": [tool], "tool_choice": {"tool_name": "look"}}


@pytest.mark.parametrize("model", ["tooled", "coder", "jinja-tools"])
def test_odd_json_in_tools_and_calls(server, channel, model):
    method = next(each for each in methods() if each.name == "Chat")

    def cases():
        for name, fields in odd_conversations():
            request = json_format.ParseDict({"model": model, "options": FEW} | fields, chat_pb2.ChatRequest())
            yield name, method, request

    assert faults(server, channel, cases()) == []


def test_odd_options_by_name(server, channel):
    """Options that only a reload could apply are not tried with values that are taken: each would load the model."""
    method = next(each for each in methods() if each.name == "Generate")
    loading = {"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict", "use_mmap"}

    def cases():
        for name in OPTIONS:
            for value in OPTION_VALUES if name not in loading else ("1e999", "NaN", "9" * 6000, '"a"', DEEP_LIST):
                text = '{"num_predict":2,"' + name + '":' + value + "}"
                fields = {"model": "scripted", "text": "Hi", "options": {"options_json": text}}
                yield text[:60], method, json_format.ParseDict(fields, generate_pb2.GenerateRequest())

    assert faults(server, channel, cases()) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"num_keep": 2**40}, 'option "num_keep" must be between'),
        ({"num_thread": 1_000_000}, 'option "num_thread" must be at most 512 (PUNA_MAX_THREADS)'),
        ({"num_batch": 2**31}, 'option "num_batch" must be at most 8192 (PUNA_MAX_BATCH_TOKENS)'),
    ],
)
def test_a_refusal_names_the_option_and_its_limit(server, option, words):
    body = {"model": "scripted", "prompt": "Hi", "stream": False, "options": option}
    status, _, answer = server.ask("/api/generate", body)
    assert (status, words in json.loads(answer)["error"]) == (400, True), answer


def test_a_boundless_context_is_cut(server, tmp_path):
    data = (MODELS / "scripted.gguf").read_bytes()
    key = b"llama.context_length" + struct.pack("<I", 4)
    at = data.index(key) + len(key)
    path = tmp_path / "boundless.gguf"
    path.write_bytes(data[:at] + struct.pack("<I", 2**31 - 1) + data[at + 4 :])
    server.upload("boundless", path)
    body = {"model": "boundless", "prompt": "Hi", "stream": False, "options": {"num_ctx": 2**40, "num_predict": 2}}
    assert server.json("/api/generate", body)["done"]
    assert [each["context_length"] for each in server.json("/api/ps")["models"] if "boundless" in each["name"]] == [
        2**24
    ]
    server.json("/api/generate", {"model": "boundless", "keep_alive": 0})


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "/".join(["x" * 200] * 6)])
def test_names_of_files_that_no_folder_takes_are_refused(server, name):
    files = {f"{name}.safetensors": "sha256:" + "0" * 64, "config.json": "sha256:" + "0" * 64}
    status, _, answer = server.ask("/api/create", {"model": "x", "files": files, "stream": False})
    assert (status, json.loads(answer)["error"]) == (400, "a file's name is too long or has a zero byte in it")


BODIES = {
    "/api/generate": {"model": "scripted", "prompt": "Hi", "stream": False, "options": {"num_predict": 2}},
    "/api/chat": {"model": "tooled", "messages": USER, "stream": False, "options": {"num_predict": 2}},
    "/api/embed": {"model": "embedder", "input": "a"},
    "/api/embeddings": {"model": "embedder", "prompt": "a"},
    "/api/show": {"model": "scripted"},
    "/api/create": {"model": "made", "from": "scripted", "stream": False},
    "/api/copy": {"source": "scripted", "destination": "copied"},
    "/v1/chat/completions": {"model": "tooled", "messages": USER, "max_tokens": 2},
    "/v1/completions": {"model": "scripted", "prompt": "Hi", "max_tokens": 2},
    "/v1/embeddings": {"model": "embedder", "input": "a"},
    "/v1/messages": {"model": "tooled", "messages": USER, "max_tokens": 2},
    "/v1/responses": {"model": "tooled", "input": "Hi", "max_output_tokens": 2},
}
STRUCTS = {
    "/api/generate": native.GENERATE,
    "/api/chat": native.CHAT,
    "/api/embed": native.EMBED,
    "/api/embeddings": native.EMBEDDINGS,
    "/api/show": native.SHOW,
    "/api/create": native.CREATE,
    "/api/copy": native.COPY,
    "/v1/chat/completions": openai.CHAT_COMPLETION,
    "/v1/completions": openai.COMPLETION,
    "/v1/embeddings": openai.EMBEDDINGS,
    "/v1/messages": anthropic.MESSAGES,
    "/v1/responses": responses.RESPONSES,
}
NESTED = '{"a":' * 300 + "1" + "}" * 300
VALUES = (
    *("null", "-1", "1e300", "1e999", str(2**40), str(-(2**70)), "9" * 6000, '"9e99h"', '"\\ud800\\u0000"', "[[1]]"),
    *("[" * 5_000 + "]" * 5_000, '{"a":' * 20_000 + "1" + "}" * 20_000),
    '[{"type":"function","function":{"name":"f","parameters":{"properties":' + NESTED + "}}}]",
    '[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":' + NESTED + "}}]}]",
)


@pytest.mark.parametrize("route", BODIES)
def test_every_field_of_every_body(server, route):
    found = []
    for field in STRUCTS[route].zero:
        for value in VALUES:
            body = json.dumps({key: each for key, each in BODIES[route].items() if key != field})
            status, text = posted(server, route, body[:-1] + (", " if len(body) > 2 else "") + f'"{field}": {value}}}')
            # Ollama answers some wrong bodies with 500 and the reason; a fault of our own has no reason to tell.
            if status >= 500 and any(words in text for words in ("internal error", "terminated", "stopped")):
                found.append(f"{field} = {value[:60]}: {status} {text[:150]}")
    assert found == []
    assert ping(server) < 2


def posted(server, route, body):
    request = urllib.request.Request(server.url + route, body.encode(), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
