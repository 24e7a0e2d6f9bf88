"""Bounds on the contents of one request. They are checked before conversion, and hold for REST and gRPC alike."""

from puna.errors import InvalidRequestError
from puna.limits import Limits
from puna.rpc import rules
from puna_client.v1 import chat_pb2, embed_pb2, generate_pb2, models_pb2, options_pb2, rank_pb2, tokenize_pb2


def check_generate(wire: generate_pb2.GenerateRequest, limits: Limits) -> None:
    """Raise InvalidRequestError if a completion request exceeds a limit."""
    _check("context", len(wire.context.ids), limits.max_json_values, "tokens")
    _check("token_ids", len(wire.token_ids.ids), limits.max_json_values, "tokens")
    _check_n(wire, limits)
    check_options(wire.options, limits)


def check_chat(wire: chat_pb2.ChatRequest, limits: Limits) -> None:
    """Raise InvalidRequestError if a chat request exceeds a limit."""
    _check("messages", len(wire.messages), limits.max_messages, "messages")
    # A message may hold any number of calls, so the bound on messages does not bound them.
    _check("tool_calls", sum(len(each.tool_calls) for each in wire.messages), limits.max_messages, "calls")
    _check("parts", sum(len(each.parts) for each in wire.messages), limits.max_messages, "parts")
    _check("tools", len(wire.tools), limits.max_tools, "tools")
    rules.check(wire.tool_choice, "tool_choice.")
    _check_n(wire, limits)
    check_options(wire.options, limits)


def check_embed(wire: embed_pb2.EmbedRequest, limits: Limits) -> None:
    """Raise InvalidRequestError if there are too many texts."""
    _check("input", len(wire.inputs), limits.max_inputs, "texts")
    rules.check(wire)
    check_options(wire.options, limits)


def check_rerank(wire: rank_pb2.RerankRequest, limits: Limits) -> None:
    """Raise InvalidRequestError if there are too many documents."""
    _check("documents", len(wire.documents), limits.max_inputs, "documents")
    rules.check(wire)
    check_options(wire.options, limits)


def check_score(wire: rank_pb2.ScoreRequest, limits: Limits) -> None:
    """Raise InvalidRequestError if there are too many continuations."""
    _check("continuations", len(wire.continuations), limits.max_inputs, "texts")
    check_options(wire.options, limits)


def check_detokenize(wire: tokenize_pb2.DetokenizeRequest, limits: Limits) -> None:
    """Raise InvalidRequestError if there are too many tokens."""
    _check("token_ids", len(wire.token_ids), limits.max_json_values, "tokens")
    check_options(wire.options, limits)


def check_create(wire: models_pb2.CreateModelRequest, limits: Limits) -> None:
    """Raise InvalidRequestError if the new model has too many files, messages or licenses."""
    _check("messages", len(wire.messages), limits.max_messages, "messages")
    _check("license", len(wire.licenses), limits.max_licenses, "texts")
    for files in (wire.files, wire.adapters, wire.draft_files):
        _check("files", len(files), limits.max_model_files, "files")
    check_length("backend_options", wire.backend_options_json, limits)
    check_length("parameters", wire.parameters_json, limits)
    check_length("info", wire.info_json, limits)


def check_options(wire: options_pb2.RequestOptions, limits: Limits) -> None:
    """Raise InvalidRequestError if there are too many options, or one is too long or out of its bounds."""
    rules.check(wire, "options.")
    check_length("options", wire.options_json, limits)
    _check("stop", len(wire.sampling.stop), limits.max_stops, "strings")
    _check("logit_bias", len(wire.sampling.logit_bias), limits.max_json_values, "tokens")
    texts = wire.backend_options_json
    # The names count as well: a map of many empty values is large, too.
    count = sum(len(name) + len(text) for name, text in texts.items())
    _check("backend_options_json", count, limits.max_options_bytes, "characters")


def check_length(field: str, text: str, limits: Limits) -> None:
    """Raise InvalidRequestError if the JSON of an object of options is too long."""
    _check(field, len(text), limits.max_options_bytes, "characters")


# Stop strings also come in options_json, where only the parsed value tells their number.
def check_stops(values: object, limits: Limits) -> None:
    """Raise InvalidRequestError if there are too many stop strings."""
    if isinstance(values, list):
        _check("stop", len(values), limits.max_stops, "strings")


def _check_n(wire: generate_pb2.GenerateRequest | chat_pb2.ChatRequest, limits: Limits) -> None:
    """Raise InvalidRequestError if the request asks for no answer or for too many."""
    if wire.HasField("n"):
        rules.check(type(wire)(n=wire.n))
        _check("n", wire.n, limits.max_choices, "answers")


def _check(field: str, count: int, most: int, things: str) -> None:
    if count > most:
        text = f"{field}: {count} {things} are more than the limit of {most}"
        raise InvalidRequestError(text, field=field, limit=most)
