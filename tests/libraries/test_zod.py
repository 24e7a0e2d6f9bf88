"""The schemas of zod's types: each is enforced, and zod reads what may be written, unless it demands more."""

import json
import subprocess

import pytest
from tests.plugins.llama_cpp.random_walk import TooLongError, random_text, schema_violations

MORE_THAN_THE_SCHEMA = {"jwt", "stringbool"}
"""Kinds of which zod demands what their schemas do not say, or whose schemas are of what they return."""


@pytest.fixture(scope="module")
def run(node):
    binary, home = node

    def run(*arguments, text=""):
        command = [binary, home / "zod_schemas.mjs", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def schemas(run):
    return run()


def test_what_may_be_written_keeps_to_the_schemas(schemas):
    assert len(schemas) > 150
    assert {name: found for name, schema in schemas.items() if (found := schema_violations(schema, seeds=2))} == {}


def test_what_may_be_written_is_read_by_zod(run, schemas):
    texts = {
        name: list(some(schema)) for name, schema in schemas.items() if name.split()[0] not in MORE_THAN_THE_SCHEMA
    }
    assert run("--read", text=json.dumps(texts)) == {}


def some(schema):
    """Yield a few texts that chance writes."""
    for seed in range(3):
        try:
            yield random_text("json_schema", json.dumps(schema), seed)
        except TooLongError:
            continue
