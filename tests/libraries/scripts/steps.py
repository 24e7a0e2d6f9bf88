"""Runs the steps of a script one after another and prints as JSON what each found."""

import asyncio
import inspect
import json
import sys
import traceback

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "The name of the city"}},
    "required": ["city"],
}
FUNCTION = {"name": "get_weather", "description": "Get the weather in a city", "parameters": WEATHER}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def run(*steps):
    """Call each step with the server's URL; a step that fails does not stop the next."""
    results = {}
    for step in steps:
        try:
            found = step(sys.argv[1])
            results[step.__name__] = {"found": asyncio.run(found) if inspect.iscoroutine(found) else found}
        except Exception:
            results[step.__name__] = {"error": traceback.format_exc()}
    sys.stdout.write(json.dumps(results) + "\n")
