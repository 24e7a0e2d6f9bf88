"""A pull with progress."""

import os

from puna_client.v1.models_pb2 import JOB_PHASE_DONE, JOB_PHASE_DOWNLOADING


async def test_pull_with_progress(client):
    name = os.environ["PUNA_PULL_MODEL"]
    stream = client.pull(name, insecure=True, timeout=60)
    steps = [progress async for progress in stream]
    model = await stream.result()
    largest = max(step.total_bytes for step in steps)
    done = [step.completed_bytes for step in steps if step.total_bytes == largest]
    assert largest >= 3_000_000
    assert done == sorted(done)
    assert any(0 < each < largest for each in done)
    assert {step.phase for step in steps} >= {JOB_PHASE_DOWNLOADING, JOB_PHASE_DONE}
    assert model.name == name
    assert name in [each.name for each in await client.list_models()]
