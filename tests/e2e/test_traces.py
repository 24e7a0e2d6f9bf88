"""Traces of a running server at its end, and a server without them."""

import asyncio
import subprocess
import sys

from tests.core.tracing.collector import collecting
from tests.e2e.server import MODELS, serving


async def test_the_end_of_the_server_exports_the_failure_of_a_request_that_it_cancels(tmp_path):
    settings = {"PUNA_TRACES": "1", "OTEL_BSP_SCHEDULE_DELAY": "60000", "PUNA_MAX_DRAIN_SECONDS": "0.1"}
    async with collecting() as (collector, url):
        context = serving(tmp_path / "models", OTEL_EXPORTER_OTLP_ENDPOINT=url, **settings)
        running = await asyncio.to_thread(context.__enter__)
        try:
            # Unlike the demo model, it ends at its limit alone.
            await asyncio.to_thread(running.upload, "scripted", MODELS / "scripted.gguf")
            asked = {"model": "scripted", "prompt": "b", "raw": True, "options": {"num_predict": 1_000_000}}
            answer = await asyncio.to_thread(running.open, "/api/generate", asked)
            await asyncio.to_thread(answer.readline)
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)
        answer.close()
        span = next(each for each in collector.spans if each.name == "text_completion scripted")
        assert span.attributes["error.type"] == "SERVER_ENDING"
        assert [each.name for each in collector.children(span)] == ["load", "render", "prefill", "decode"]


def test_a_server_without_traces_does_not_import_the_library():
    code = (
        "import sys\n"
        "import puna.cli.serve, puna.rpc.server, puna.serving.core, puna.batch.core, puna.metrics.collector\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'puna.tracing'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
