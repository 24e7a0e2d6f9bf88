from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from puna import events
from puna.backend import KvCacheUsage
from puna.metrics.collector import Metrics
from puna.runtime.launcher import NodeState

MODEL = {"model_name": "m"}
LOADED = {
    "name": "m:latest",
    "size_bytes": 1000,
    "kv_cache_tokens": 100,
    "kv_cache_type": "q8_0",
    "replicas": ("first", "second"),
}


@pytest.fixture
def tables():
    """The requests under way, and the loaded models."""
    return SimpleNamespace(requests=[], models=[])


@pytest.fixture
def metrics(tables):
    found = Metrics(lambda: tables.requests, lambda: tables.models)
    events.publish(events.ModelLoaded(model="m:latest", backend="b", seconds=0.4))
    yield found
    found.close()


def samples(metrics):
    """Return all samples by name and labels."""
    families = parse(metrics.text().decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(metrics, name, **labels):
    return samples(metrics).get((name, frozenset(labels.items())))


def ended(**values):
    events.publish(
        events.RequestEnded(
            **{
                "id": "r1",
                "model": "m",
                "method": "StreamChat",
                "key": "",
                "outcome": "stop",
                "failed": False,
                "phase": "decode",
                "seconds": 2.0,
                **values,
            }
        )
    )


def test_an_answer_is_counted_and_timed(metrics):
    events.publish(events.AnswerTimed(model="m", arrivals=(0.5, 1.0, 1.75)))
    ended(
        prompt_tokens=10,
        cached_tokens=4,
        output_tokens=3,
        queue_seconds=0.2,
        prefill_seconds=0.3,
        decode_seconds=1.0,
    )
    for name, expected in {
        "prompt_tokens_total": 10,
        "prompt_tokens_cached_total": 4,
        "prefix_cache_queries_total": 10,
        "prefix_cache_hits_total": 4,
        "generation_tokens_total": 3,
        "e2e_request_latency_seconds_sum": 2.0,
        "request_queue_time_seconds_sum": 0.2,
        "request_prefill_time_seconds_sum": 0.3,
        "request_decode_time_seconds_sum": 1.0,
        "request_time_per_output_token_seconds_sum": 0.5,
        "time_to_first_token_seconds_sum": 0.5,
        "inter_token_latency_seconds_count": 2,
        "inter_token_latency_seconds_sum": 1.25,
        "request_prompt_tokens_sum": 10,
        "request_generation_tokens_sum": 3,
        "model_load_seconds_sum": 0.4,
    }.items():
        assert value(metrics, f"puna:{name}", **MODEL) == expected, name
    assert value(metrics, "puna:request_success_total", **MODEL, finished_reason="stop") == 1


def test_cancelled_and_failed_requests_are_counted_and_not_timed(metrics):
    ended(outcome="CANCELLED", failed=True, phase="prefill")
    ended(outcome="CONTEXT_OVERFLOW", failed=True)
    assert value(metrics, "puna:requests_cancelled_total", **MODEL, phase="prefill") == 1
    assert value(metrics, "puna:request_failure_total", **MODEL, reason="CONTEXT_OVERFLOW") == 1
    assert value(metrics, "puna:e2e_request_latency_seconds_count", **MODEL) is None


def test_clients_cannot_make_series(metrics):
    for number in range(100):
        ended(model=f"nosuch{number}", outcome="MODEL_NOT_FOUND", failed=True)
    assert value(metrics, "puna:request_failure_total", model_name="", reason="MODEL_NOT_FOUND") == 100
    assert not [each for each in samples(metrics) if "nosuch" in str(each)]


def test_embeddings_hosts_models_keys_and_calls(metrics):
    ended(method="Embed", outcome="", vectors=5, prompt_tokens=7, truncated_tokens=2, key="team")
    events.publish(events.HostDied(model="m:latest", status="SIGKILL"))
    events.publish(events.ModelRemoved(model="m:latest", cause="crashed"))
    events.publish(events.CallEnded(service="puna.v1.ChatService", method="Chat", code="OK", seconds=0.1))
    assert value(metrics, "puna:embeddings_total", **MODEL) == 5
    assert value(metrics, "puna:truncated_tokens_total", **MODEL) == 2
    assert value(metrics, "puna:key_tokens_total", key="team", kind="prompt") == 7
    assert value(metrics, "puna:host_deaths_total", **MODEL, status="SIGKILL") == 1
    assert value(metrics, "puna:models_removed_total", **MODEL, cause="crashed") == 1
    call = {"grpc_service": "puna.v1.ChatService", "grpc_method": "Chat"}
    assert value(metrics, "grpc_server_handled_total", **call, grpc_code="OK") == 1


def test_gauges_are_read_from_the_tables(metrics, tables):
    tables.models.append(SimpleNamespace(**LOADED, kv_cache_usage=KvCacheUsage(25, 60)))
    for phase, model in (("decode", "m"), ("prefill", "m:latest"), ("queued", "m"), ("queued", "nosuch")):
        tables.requests.append(SimpleNamespace(model=model, phase=phase))
    assert value(metrics, "puna:num_requests_running", **MODEL) == 2
    assert value(metrics, "puna:num_requests_waiting", **MODEL) == 1
    assert value(metrics, "puna:num_requests_waiting", model_name="") == 1
    assert value(metrics, "puna:model_memory_bytes", **MODEL) == 1000
    assert value(metrics, "puna:model_replicas", **MODEL) == 2
    # Tokens that later requests may reuse make room when it is needed, so they do not count as used.
    assert value(metrics, "puna:kv_cache_usage_perc", **MODEL) == 0.25
    cache = {"block_size": "1", "num_gpu_blocks": "100", "cache_dtype": "q8_0"}
    assert value(metrics, "puna:cache_config_info", **MODEL, **cache) == 1


def test_nodes_have_gauges_and_a_count_of_losses():
    nodes = [
        SimpleNamespace(address="gpu1:7", state=NodeState.CONNECTED, hosts=2, free_bytes=9),
        SimpleNamespace(address="gpu2:7", state=NodeState.DISCONNECTED, hosts=0, free_bytes=0),
    ]
    metrics = Metrics(list, list, nodes=lambda: nodes)
    events.publish(events.NodeLost(node="gpu2:7", hosts=1, error="it does not answer"))
    metrics.close()
    assert value(metrics, "puna:node_connected", node="gpu1:7") == 1
    assert value(metrics, "puna:node_connected", node="gpu2:7") == 0
    assert value(metrics, "puna:node_hosts", node="gpu1:7") == 2
    assert value(metrics, "puna:node_free_memory_bytes", node="gpu1:7") == 9
    assert value(metrics, "puna:nodes_lost_total") == 1


def test_a_backend_that_does_not_count_its_cache_has_no_gauges_of_it(metrics, tables):
    tables.models.append(SimpleNamespace(**LOADED | {"kv_cache_tokens": 0}, kv_cache_usage=None))
    assert value(metrics, "puna:model_memory_bytes", **MODEL) == 1000
    assert value(metrics, "puna:kv_cache_usage_perc", **MODEL) is None
    assert b"puna:cache_config_info{" not in metrics.text()


def test_the_prefix_of_vllm(tables):
    metrics = Metrics(list, lambda: tables.models, prefix="vllm")
    events.publish(events.ModelLoaded(model="m", backend="b", seconds=1.0))
    metrics.close()
    assert value(metrics, "vllm:model_load_seconds_count", **MODEL) == 1


def test_nothing_is_counted_after_the_end(metrics):
    metrics.close()
    ended(prompt_tokens=1)
    assert value(metrics, "puna:prompt_tokens_total", **MODEL) is None


def test_models_that_were_loaded_before_are_known(tables):
    tables.models.append(SimpleNamespace(**LOADED | {"name": "early:latest"}, kv_cache_usage=None))
    metrics = Metrics(lambda: tables.requests, lambda: tables.models)
    ended(model="early", output_tokens=3)
    metrics.close()
    assert value(metrics, "puna:generation_tokens_total", model_name="early") == 3
