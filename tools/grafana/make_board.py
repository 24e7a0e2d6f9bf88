"""Writes the Grafana board of Puna's metrics, puna.json, from the table of panels below.

python tools/grafana/make_board.py          write the board
python tools/grafana/make_board.py --check  fail if the file is not what would be written
"""

import json
import sys
from pathlib import Path
from typing import Final

BOARD: Final = Path(__file__).with_name("puna.json")
RATE: Final = "[$__rate_interval]"
COLUMNS: Final = 3
WIDTH: Final = 24 // COLUMNS
HEIGHT: Final = 8


def quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    """Return the queries for the median, and for the 95th and the 99th percentile of a histogram."""
    rate = f'sum by (le) (rate(puna:{metric}_bucket{{model_name=~"$model"}}{RATE}))'
    return tuple((f"p{share}", f"histogram_quantile({share / 100}, {rate})") for share in (50, 95, 99))


def rate(metric: str, label: str = "model_name") -> tuple[tuple[str, str], ...]:
    """Return the query for the rate of a counter, by a label."""
    return ((f"{{{{{label}}}}}", f'sum by ({label}) (rate(puna:{metric}{{model_name=~"$model"}}{RATE}))'),)


def gauge(metric: str) -> tuple[tuple[str, str], ...]:
    """Return the query for a gauge, by model."""
    return (("{{model_name}}", f'puna:{metric}{{model_name=~"$model"}}'),)


PANELS: Final[tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]] = (
    ("Requests running", "short", gauge("num_requests_running")),
    ("Requests waiting", "short", gauge("num_requests_waiting")),
    ("Answers per second", "reqps", rate("request_success_total", "finished_reason")),
    ("Output tokens per second", "short", rate("generation_tokens_total")),
    ("Prompt tokens per second", "short", rate("prompt_tokens_total")),
    (
        "Prefix cache hit rate",
        "percentunit",
        (
            (
                "{{model_name}}",
                f'sum by (model_name) (rate(puna:prefix_cache_hits_total{{model_name=~"$model"}}{RATE})) / '
                f'sum by (model_name) (rate(puna:prefix_cache_queries_total{{model_name=~"$model"}}{RATE}))',
            ),
        ),
    ),
    ("KV cache in use", "percentunit", gauge("kv_cache_usage_perc")),
    ("Time to first token", "s", quantiles("time_to_first_token_seconds")),
    ("Inter-token latency", "s", quantiles("inter_token_latency_seconds")),
    ("Request latency", "s", quantiles("e2e_request_latency_seconds")),
    ("Queue time", "s", quantiles("request_queue_time_seconds")),
    ("Prefill time", "s", quantiles("request_prefill_time_seconds")),
    ("Decode time", "s", quantiles("request_decode_time_seconds")),
    ("Failures per second", "reqps", rate("request_failure_total", "reason")),
    ("Cancelled requests per second", "reqps", rate("requests_cancelled_total", "phase")),
    ("Hosts that died", "short", (("{{model_name}} {{status}}", "increase(puna:host_deaths_total[1h])"),)),
    ("Models removed per hour", "short", (("{{cause}}", "sum by (cause) (increase(puna:models_removed_total[1h]))"),)),
    ("Time to load a model", "s", quantiles("model_load_seconds")),
    ("Memory of models", "bytes", gauge("model_memory_bytes")),
    (
        "Accepted drafts",
        "percentunit",
        (
            (
                "accepted",
                f"sum(rate(puna:spec_decode_num_accepted_tokens_total{RATE})) / "
                f"sum(rate(puna:spec_decode_num_draft_tokens_total{RATE}))",
            ),
        ),
    ),
    ("Tokens per second by key", "short", (("{{key}}", f"sum by (key) (rate(puna:key_tokens_total{RATE}))"),)),
    (
        "gRPC calls per second by status",
        "reqps",
        (("{{grpc_code}}", f"sum by (grpc_code) (rate(grpc_server_handled_total{RATE}))"),),
    ),
)
"""Title, unit, and the queries with their legends."""


def board() -> dict[str, object]:
    """Return the board."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    model = {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": source,
        "query": "label_values(puna:models_loaded, model_name)",
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }
    return {
        "title": "Puna",
        "uid": "puna",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}, model]},
        "panels": [
            {
                "id": number + 1,
                "title": title,
                "type": "timeseries",
                "datasource": source,
                "gridPos": {
                    "x": number % COLUMNS * WIDTH,
                    "y": number // COLUMNS * HEIGHT,
                    "w": WIDTH,
                    "h": HEIGHT,
                },
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend}
                    for index, (legend, query) in enumerate(queries)
                ],
            }
            for number, (title, unit, queries) in enumerate(PANELS)
        ],
    }


def main() -> int:
    """Write the board, or compare it."""
    text = json.dumps(board(), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        return int(BOARD.read_text() != text)
    BOARD.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
