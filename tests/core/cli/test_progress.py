import json

from puna.cli.progress import follow
from puna_client.v1 import models_pb2

STEPS = [
    ("pulling manifest", "", 0, 0),
    *(("pulling 1", "sha256:1", 10, done) for done in (0, 5, 10)),
    ("success", "", 0, 0),
]


async def steps():
    for status, digest, total, completed in STEPS:
        progress = models_pb2.JobProgress(status=status, digest=digest, total_bytes=total, completed_bytes=completed)
        yield models_pb2.PullModelResponse(progress=progress)


async def test_in_a_pipe_each_line_stands_once(capsys):
    await follow(steps(), as_json=False)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "pulling manifest\npulling 1\npulling 1 100%\nsuccess\n")


async def test_scripts_get_every_step_as_json(capsys):
    await follow(steps(), as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [tuple(line.values()) for line in lines] == STEPS
    assert list(lines[0]) == ["status", "digest", "total", "completed"]
