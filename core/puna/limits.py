"""The bounds on what one request, connection, model or peer may use, and the range of numbers on the wire.

Every field of Limits is a setting. Its environment variable is PUNA_ and the field's name in upper case; the
configuration file has the same name in lower case in its table [limits]. The environment wins over the file. A value of
0 removes the bound.

The defaults are far above what an honest request needs. SECURITY.md lists every bound with its default and the effect
of meeting it; tests/test_security.py compares that list with this module. The docstring below each field is also its
text in the index of variables in core/README.md.
"""

import logging
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

log = logging.getLogger(__name__)

PREFIX: Final = "PUNA_"
LARGEST_INT32: Final = 2**31 - 1


def clamp_int32(value: int) -> int:
    """Clamp a number to the range of the wire and of backends; one outside is too large for its purpose either way."""
    return max(-LARGEST_INT32, min(value, LARGEST_INT32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds. Integers count bytes or items; floats are seconds."""

    # Requests.
    max_request_bytes: int = 64 << 20
    """Bytes of the body of a request that is not an upload, after decompression."""
    max_web_message_bytes: int = 8 << 20
    """Bytes of a binary message by Connect or gRPC-Web, whose elements are not counted before they are in memory."""
    max_control_bytes: int = 1 << 20
    """Bytes of the body of a request that only names models: show, copy, delete, pull and push."""
    max_bodies_bytes: int = 1 << 30
    """Bytes of all bodies above 64 KiB together, while their requests are served."""
    max_upload_bytes: int = 1 << 40
    """Bytes of an uploaded blob."""
    max_tokenize_characters: int = 8 << 20
    """Characters of a text to tokenize, and token ids to detokenize, in one call of TokenizeService."""

    # Connections.
    max_connections: int = 4096
    """Connections to the REST listener."""
    max_connections_per_address: int = 2048
    """Connections to the REST listener from one IPv4 address or one IPv6 network of 64 bits."""
    max_grpc_connections: int = 1024
    """Connections to the gRPC listener."""
    max_grpc_streams: int = 1024
    """Concurrent calls on one gRPC connection."""
    max_grpc_calls: int = 4096
    """Concurrent gRPC calls."""
    header_timeout: float = 30.0
    """Seconds from the first byte of an HTTP request to the end of its headers."""
    idle_timeout: float = 600.0
    """Seconds that a connection may wait for its next request."""
    body_timeout: float = 60.0
    """Seconds within which more of a body, or the first message of a gRPC call, must arrive."""
    write_timeout: float = 120.0
    """Seconds within which a client must read some of its answer."""
    max_unread_deltas: int = 32_768
    """Decoding steps of one answer that may wait for a client that reads more slowly than the model writes."""
    max_json_values: int = 500_000
    """Values in the JSON of one body: members of objects, elements of arrays and the containers themselves."""
    max_packed_frames: int = 1_000
    """Frames of a body that is compressed with zstd. Clients send one; each takes 20 microseconds, even a short one."""
    max_options_bytes: int = 1 << 20
    """Characters of the JSON text of a request's options, or of the parameters, the info or the backend's options of a
    model to create."""
    max_stops: int = 1_000
    """Stop strings of one request."""
    max_inputs: int = 100_000
    """Texts to embed, documents to rank, or continuations to score, in one request."""
    max_score_logprobs: int = 200_000
    """Log-probabilities in one answer of Score: those of tokens and of their alternatives."""
    max_messages: int = 20_000
    """Messages of one conversation, tool calls in it, and parts of its messages."""
    max_licenses: int = 1000
    """License texts of a model to create. Each becomes a file of the store."""
    max_model_files: int = 2_000
    """Files of a model to create. Each has a line in the model's manifest."""
    max_tools: int = 5_000
    """Tools of one request."""
    max_choices: int = 32
    """Answers to one request (`n`). Each runs as a sequence of its own and waits for a slot of the model."""

    # Answers.
    max_kept_answer_bytes: int = 16 << 20
    """Bytes of answers of /v1/responses that are kept in memory, so that later requests can refer to their items."""

    # Batches and files of clients.
    max_batch_requests: int = 50_000
    """Requests of one batch."""
    max_batch_request_bytes: int = 8 << 20
    """Bytes of one request of a batch, and of one line of a file of requests."""
    max_file_bytes: int = 200 << 20
    """Bytes of one file of a client, and of the requests of one batch."""
    max_batches: int = 1_000
    """Batches that are kept."""
    max_batches_per_key: int = 200
    """Batches of one API key that are kept."""
    max_files: int = 2_000
    """Files of clients that are kept."""
    max_files_per_key: int = 500
    """Files of one API key that are kept."""
    max_stored_bytes: int = 32 << 30
    """Bytes of all files of clients, and of all batches with their answers."""
    max_stored_bytes_per_key: int = 8 << 30
    """Bytes of the files of one API key, and of its batches with their answers."""
    max_batch_seconds: float = 604_800.0
    """Seconds of the longest completion window of a batch."""
    max_kept_seconds: float = 2_592_000.0
    """Seconds for which a file, and a batch that has ended, are kept."""
    max_batch_concurrency: int = 8
    """Requests of batches that run at once."""

    # The event loop, which all requests share.
    max_loop_seconds: float = 0.1
    """Seconds of one turn of the event loop after which the watchdog logs the place in the code."""

    # The end of the server.
    max_drain_seconds: float = 30.0
    """Seconds within which running requests must finish after the first signal."""

    # Registries.
    max_manifest_bytes: int = 1 << 20
    """Bytes of a manifest from a registry."""
    max_manifest_layers: int = 10_000
    """Layers of a manifest from a registry."""
    max_model_bytes: int = 1 << 42
    """Bytes of a pulled model, and of each of its blobs."""

    # Hosts.
    max_host_silence_seconds: float = 30.0
    """Seconds within which the host process of a model must answer a heartbeat."""
    max_step_seconds: float = 600.0
    """Seconds within which a working model must complete a step: a prefill batch, a token, a batch of embeddings."""
    max_host_message_bytes: int = 256 << 20
    """Bytes of one message from the host process of a model: the vectors of some texts, the events of a step."""
    max_sequence_bytes: int = 256 << 20
    """Bytes of all events of one sequence that the host process of a model sends."""
    max_load_pause_seconds: float = 60.0
    """Seconds for which a model is not loaded again after its host process has died several times while loading it."""
    max_silent_load_seconds: float = 5.0
    """Seconds without progress after which a load no longer keeps other models from being loaded."""

    max_node_silence_seconds: float = 2.0
    """Seconds within which a node must answer before its hosts count as gone."""
    max_placement_seconds: float = 30.0
    """Seconds that a model may wait for a machine of a Ray cluster with room for it."""
    max_replicas: int = 64
    """Hosts of one model."""
    max_routing_blocks: int = 65_536
    """Blocks of prompts, of about 64 tokens, that the core remembers for each replica of a model."""
    max_node_cache_bytes: int = 200 << 30
    """Bytes of the files of models that a node keeps in its cache."""

    max_listing_seconds: float = 2.0
    """Seconds that a request waits for a backend to list the models that it offers."""
    max_upstream_models: int = 10_000
    """Models of one backend that are listed."""

    # Constraints on the output: JSON schemas, grammars, expressions.
    max_constraint_bytes: int = 4 << 20
    """Bytes of the text of one constraint."""
    max_constraint_seconds: float = 5.0
    """Seconds of CPU time to compile one constraint."""
    max_mask_seconds: float = 1.0
    """Seconds of CPU time to compute which tokens a constraint allows next."""
    max_constraint_memory_bytes: int = 256 << 20
    """Bytes of memory of all constraints of one model together."""

    # Templates, which are programs by the authors of requests and models.
    template_bytes: int = 256 << 10
    """Bytes of a template's source."""
    template_seconds: float = 5.0
    """Seconds of CPU time to render, read or probe a template."""
    template_memory_bytes: int = 256 << 20
    """Bytes of address space of a process that runs templates."""
    template_output_bytes: int = 16 << 20
    """Bytes of the output of a template."""
    template_workers: int = 2
    """Worker processes that run templates, and as many more for slow templates."""

    # Records of requests, the log and the events of the server, which DiagnosticsService shows.
    max_records: int = 200
    """Records of requests that have ended, if the server keeps any."""
    max_records_bytes: int = 64 << 20
    """Bytes of the texts of all records, those of running requests included."""
    max_record_bytes: int = 1 << 20
    """Bytes of the prompts and other inputs of one record, and as many of its answers."""
    max_log_lines: int = 2000
    """Lines of the log that are kept in memory."""
    max_log_bytes: int = 4 << 20
    """Bytes of these lines."""
    max_server_events: int = 1000
    """Events of the server that are kept in memory: models that were loaded or removed, hosts that died."""
    max_server_event_bytes: int = 4 << 20
    """Bytes of these events."""

    # Traces.
    max_trace_stages: int = 256
    """Stages of one request that become spans of its trace."""
    max_trace_content_bytes: int = 32 << 10
    """Bytes of the texts of a request, and of those of its answer, in a trace that has texts."""
    max_trace_flush_seconds: float = 5.0
    """Seconds in which a server that ends may send the traces that wait."""

    # Options of requests and models.
    max_threads: int = 512
    """Largest value of the option num_thread."""
    max_context_tokens: int = 1 << 24
    """Longest context in tokens with which a model is loaded, whatever num_ctx and the model say."""
    max_batch_tokens: int = 8192
    """Largest value of the option num_batch."""


DEFAULT_LIMITS: Final = Limits()


def read_limits(environ: Mapping[str, str], table: Mapping[str, Any] | None = None) -> Limits:
    """Read the bounds from the environment and the configuration's table.

    A bad value falls back to its default with a warning. A name in the table that is no bound raises ValueError.
    """
    table = table or {}
    names = {field.name for field in fields(Limits)}
    if unknown := sorted(table.keys() - names):
        raise ValueError(f"unknown limit {unknown[0]!r} in the configuration's table [limits]")
    found: dict[str, Any] = {}
    for field in fields(Limits):
        # An empty variable counts as unset.
        given = environ.get(PREFIX + field.name.upper(), "").strip() or table.get(field.name)
        if given is not None:
            # The default decides between integer and float.
            found[field.name] = _number(field.name, given, getattr(DEFAULT_LIMITS, field.name))
    return Limits(**found)


def _number(name: str, given: str | float, default: float) -> float:
    """Return a bound as a number; 0 becomes the largest number of its type."""
    try:
        value = type(default)(given)
    except (TypeError, ValueError, OverflowError):
        value = -1
    # Negated, because NaN fails every comparison: `value < 0` would let it pass.
    if not value >= 0:
        log.warning("%s%s is no positive number, using %s", PREFIX, name.upper(), default)
        return default
    # Every comparison with the bound is then false, so no caller needs a case for "no bound".
    return value or (sys.maxsize if isinstance(default, int) else math.inf)
