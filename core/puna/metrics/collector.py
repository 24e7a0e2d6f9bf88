"""The metrics: what each event changes, and what is read when they are asked for.

Names and meanings are those of vLLM under the prefix `puna:`, so that boards for vLLM work after a change of the
prefix. Metrics that vLLM does not have follow. Counters and histograms change with events of `puna.events`. Gauges are
read from the tables of requests, models and nodes at each question.

The value of a label is never chosen by a client alone: a series lives for ever, and a client with many names would fill
the memory. So the label `model_name` is that of a model which this process has loaded, and empty for a request that did
not get to one; reasons, methods and codes come from fixed sets; keys are named by the operator.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from puna import events
from puna.metrics.series import CounterSeries, HistogramSeries
from puna.runtime.launcher import NodeState, NodeStatus
from puna.runtime.requirements import LoadedEntry
from puna.serving.activity import Entry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = ""
"""The label of requests that reached no model."""

_MODEL: Final = ("model_name",)
# Bounds in seconds: from a token of a small model to a request that runs for a quarter of an hour.
_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_LONG: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
_SEQUENCES: Final = frozenset({"Generate", "StreamGenerate", "Chat", "StreamChat"})
"""Methods whose requests are counted as requests of vLLM are."""
_SUCCESS: Final = frozenset({"stop", "length", "tool_calls"})


class Metrics:
    """All metrics of one core, from now on until `close`."""

    def __init__(
        self,
        requests: Callable[[], Iterable[Entry]],
        models: Callable[[], Sequence[LoadedEntry]],
        prefix: str = "puna",
        *,
        nodes: Callable[[], Sequence[NodeStatus]] = tuple,
    ) -> None:
        """`requests` returns the requests under way, `models` the loaded models, `nodes` the nodes."""
        self._registry = CollectorRegistry()
        # Models that are loaded already: the dashboard has metrics begin while the server runs.
        self._known = {label(each.name) for each in models()}
        self._prefix = prefix
        self._declare()
        self._registry.register(_Tables(requests, models, nodes, prefix))
        self._endings = [
            events.subscribe(events.RequestEnded, self._on_request),
            events.subscribe(events.AnswerTimed, self._on_times),
            events.subscribe(events.ModelLoaded, self._on_loaded),
            events.subscribe(events.ModelRemoved, self._on_removed),
            events.subscribe(events.HostDied, self._on_death),
            events.subscribe(events.NodeLost, lambda _: self._lost.add()),
            events.subscribe(events.CallEnded, self._on_call),
        ]

    def close(self) -> None:
        """Listen to no further event."""
        while self._endings:
            self._endings.pop()()

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> CounterSeries:
        return CounterSeries(f"{self._prefix}:{name}", text, (*_MODEL, *labels), self._registry)

    def _histogram(self, name: str, text: str, bounds: Sequence[float]) -> HistogramSeries:
        return HistogramSeries(f"{self._prefix}:{name}", text, _MODEL, bounds, self._registry)

    def _declare(self) -> None:
        """Make the metrics, vLLM's first."""
        counter, histogram = self._counter, self._histogram
        self._prompt_tokens = counter("prompt_tokens", "Prompt tokens, cached ones included.")
        self._cached_tokens = counter("prompt_tokens_cached", "Prompt tokens that came from the prefix cache.")
        self._queries = counter("prefix_cache_queries", "Prompt tokens that were looked up in the prefix cache.")
        self._hits = counter("prefix_cache_hits", "Prompt tokens that the prefix cache had.")
        self._generation_tokens = counter("generation_tokens", "Output tokens.")
        self._success = counter("request_success", "Requests that ended with an answer.", "finished_reason")
        self._drafts = counter("spec_decode_num_draft_tokens", "Tokens that speculative decoding drafted.")
        self._accepted = counter("spec_decode_num_accepted_tokens", "Drafted tokens that the model accepted.")
        self._first = histogram("time_to_first_token_seconds", "From arrival to the first delta.", _LONG)
        self._between = histogram("inter_token_latency_seconds", "Between two deltas of an answer.", _SHORT)
        self._per_token = histogram(
            "request_time_per_output_token_seconds", "Decode time of a request for each token after the first.", _SHORT
        )
        self._whole = histogram("e2e_request_latency_seconds", "From arrival to the end.", _LONG)
        self._queue = histogram("request_queue_time_seconds", "Wait for a slot.", _LONG)
        self._prefill = histogram("request_prefill_time_seconds", "Prefill of a request.", _LONG)
        self._decode = histogram("request_decode_time_seconds", "Decode of a request.", _LONG)
        self._prompt_size = histogram("request_prompt_tokens", "Prompt tokens of a request.", _TOKENS)
        self._output_size = histogram("request_generation_tokens", "Output tokens of a request.", _TOKENS)
        self._failed = counter("request_failure", "Requests that ended without an answer.", "reason")
        self._cancelled = counter("requests_cancelled", "Requests that were cancelled, by what they did.", "phase")
        self._truncated = counter("truncated_tokens", "Tokens that were cut off prompts or inputs.")
        self._vectors = counter("embeddings", "Embeddings.")
        self._load = histogram("model_load_seconds", "Loading of a model.", _LONG)
        self._removed = counter("models_removed", "Models that are no longer loaded.", "cause")
        self._deaths = counter("host_deaths", "Hosts that ended without being asked to.", "status")
        # Not by node: a cluster may give each of its nodes a new address at each start.
        self._lost = CounterSeries(
            f"{self._prefix}:nodes_lost", "Times that a node was lost with its hosts.", (), self._registry
        )
        self._lost.add(count=0)
        self._by_key = CounterSeries(
            f"{self._prefix}:key_tokens", "Tokens of the requests with a key.", ("key", "kind"), self._registry
        )
        call = ("grpc_service", "grpc_method")
        self._calls = CounterSeries(
            "grpc_server_handled", "gRPC calls that ended.", (*call, "grpc_code"), self._registry
        )
        self._call_seconds = HistogramSeries(
            "grpc_server_handling_seconds", "Duration of gRPC calls.", call, _LONG, self._registry
        )

    def _label(self, requested: str) -> str:
        return name if (name := label(requested)) in self._known else OTHER

    def _on_request(self, ended: events.RequestEnded) -> None:
        model = self._label(ended.model)
        self._count_tokens(ended, model)
        if ended.outcome == "CANCELLED":
            self._cancelled.add(model, ended.phase)
        elif ended.failed:
            self._failed.add(model, ended.outcome)
        if ended.method in _SEQUENCES and ended.outcome in _SUCCESS:
            self._success.add(model, ended.outcome)
            self._observe(ended, model)

    def _count_tokens(self, ended: events.RequestEnded, model: str) -> None:
        for counter, count in (
            (self._prompt_tokens, ended.prompt_tokens),
            (self._cached_tokens, ended.cached_tokens),
            (self._queries, ended.prompt_tokens if ended.method in _SEQUENCES else 0),
            (self._hits, ended.cached_tokens),
            (self._generation_tokens, ended.output_tokens),
            (self._drafts, ended.draft_tokens),
            (self._accepted, ended.accepted_draft_tokens),
            (self._truncated, ended.truncated_tokens),
            (self._vectors, ended.vectors),
        ):
            # A series appears with its first count, so that a model that only embeds has no empty ones.
            if count:
                counter.add(model, count=count)
        if ended.key:
            self._by_key.add(ended.key, "prompt", count=ended.prompt_tokens)
            self._by_key.add(ended.key, "output", count=ended.output_tokens)

    def _observe(self, ended: events.RequestEnded, model: str) -> None:
        self._whole.observe(model, values=(ended.seconds,))
        self._queue.observe(model, values=(ended.queue_seconds,))
        self._prefill.observe(model, values=(ended.prefill_seconds,))
        self._decode.observe(model, values=(ended.decode_seconds,))
        self._prompt_size.observe(model, values=(ended.prompt_tokens,))
        self._output_size.observe(model, values=(ended.output_tokens,))
        if ended.output_tokens > 1:
            self._per_token.observe(model, values=(ended.decode_seconds / (ended.output_tokens - 1),))

    def _on_times(self, timed: events.AnswerTimed) -> None:
        model = self._label(timed.model)
        self._first.observe(model, values=(timed.arrivals[0],))
        gaps = [later - earlier for earlier, later in itertools.pairwise(timed.arrivals)]
        self._between.observe(model, values=gaps)

    def _on_loaded(self, loaded: events.ModelLoaded) -> None:
        self._known.add(label(loaded.model))
        self._load.observe(label(loaded.model), values=(loaded.seconds,))

    def _on_removed(self, removed: events.ModelRemoved) -> None:
        self._removed.add(label(removed.model), removed.cause)

    def _on_death(self, died: events.HostDied) -> None:
        self._deaths.add(label(died.model), died.status)

    def _on_call(self, ended: events.CallEnded) -> None:
        self._calls.add(ended.service, ended.method, ended.code)
        self._call_seconds.observe(ended.service, ended.method, values=(ended.seconds,))


class _Tables(Collector):
    """Gauges, read from the tables of requests, models and nodes when they are asked for."""

    def __init__(
        self,
        requests: Callable[[], Iterable[Entry]],
        models: Callable[[], Sequence[LoadedEntry]],
        nodes: Callable[[], Sequence[NodeStatus]],
        prefix: str,
    ) -> None:
        self._requests = requests
        self._models = models
        self._nodes = nodes
        self._prefix = prefix

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        loaded = {label(each.name): each for each in self._models()}
        running = dict.fromkeys((*loaded, OTHER), 0)
        waiting = dict(running)
        for entry in self._requests():
            model = name if (name := label(entry.model)) in loaded else OTHER
            (waiting if entry.phase in ("queued", "loading") else running)[model] += 1
        yield self._gauge("num_requests_running", "Requests that have a slot.", running)
        yield self._gauge("num_requests_waiting", "Requests that wait for a model or a slot.", waiting)
        sizes = {name: each.size_bytes for name, each in loaded.items()}
        yield self._gauge("model_memory_bytes", "Memory of a model by its host's own account.", sizes)
        yield self._gauge("models_loaded", "Whether the model is loaded.", dict.fromkeys(loaded, 1))
        hosts = {name: len(each.replicas) for name, each in loaded.items()}
        yield self._gauge("model_replicas", "Hosts that have the model loaded.", hosts)

        used = {
            name: each.kv_cache_usage.active_tokens / each.kv_cache_tokens
            for name, each in loaded.items()
            if each.kv_cache_usage is not None
        }
        text = "Part of the KV cache that running requests use, from 0 to 1."
        yield self._gauge("kv_cache_usage_perc", text, used)
        yield self._cache_config(loaded)
        yield from self._of_nodes()

    def _of_nodes(self) -> Iterator[Metric]:
        found = self._nodes()
        for name, text, values in (
            (
                "node_connected",
                "Whether the server holds the lease of the node.",
                [_is_connected(each) for each in found],
            ),
            ("node_hosts", "Hosts that the node runs for the server.", [each.hosts for each in found]),
            (
                "node_free_memory_bytes",
                "Free memory of the node, as it told last.",
                [each.free_bytes for each in found],
            ),
        ):
            family = GaugeMetricFamily(f"{self._prefix}:{name}", text, labels=("node",))
            for each, value in zip(found, values, strict=True):
                family.add_metric([each.address], value)
            yield family

    def _cache_config(self, loaded: Mapping[str, LoadedEntry]) -> Metric:
        # vLLM counts in blocks of tokens. A block of one token gives its boards the number of tokens.
        labels = (*_MODEL, "block_size", "num_gpu_blocks", "cache_dtype")
        family = GaugeMetricFamily(f"{self._prefix}:cache_config_info", "Size of the KV cache.", labels=labels)
        for name, each in loaded.items():
            if each.kv_cache_tokens:
                family.add_metric([name, "1", str(each.kv_cache_tokens), each.kv_cache_type], 1)
        return family

    def _gauge(self, name: str, text: str, values: Mapping[str, float]) -> Metric:
        family = GaugeMetricFamily(f"{self._prefix}:{name}", text, labels=_MODEL)
        for model, value in values.items():
            family.add_metric([model], value)
        return family


def _is_connected(node: NodeStatus) -> bool:
    return node.state is NodeState.CONNECTED


def label(name: str) -> str:
    """Return a model's name as a label: without the tag that names have by default."""
    return name.removesuffix(":latest")
