"""Answers of small models of random weights, which any server with the same arithmetic gives.

tests/plugins/llama_cpp/ollama_answers.json, vision/images.json and embeddings/embeddings.json. Start the server with
`OLLAMA_NUM_PARALLEL=1` on a processor with AVX-512: the last bits of sums depend on the instruction set, and after many
tokens at a high temperature these bits decide.
"""

import base64
from typing import Any

from tests.plugins.llama_cpp.sample_images import png
from tools.record.client import Server

LEAST_CONTEXT = 256
"""Tokens to which llama.cpp rounds a context up; a server counts by what the request says."""


def answers(server: Server, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Generate again what the cases of ollama_answers.json ask for."""
    return [{**case, **_answer(server, case)} for case in recorded]


def _answer(server: Server, case: dict[str, Any]) -> dict[str, Any]:
    model = server.create_once(f"record-{case['model']}", case["model"], template="{{ .Prompt }}")
    # A loaded model would go on from a cached beginning of the prompt, after which the last bits of sums are others.
    server.must("/api/generate", {"model": model, "keep_alive": 0, "stream": False})
    options = {**case["options"], "num_thread": 1}
    options["num_ctx"] = max(options.get("num_ctx", 4096), LEAST_CONTEXT)
    request = {"model": model, "prompt": case["prompt"], "options": options, "raw": True}
    request |= {"shift": case["shift"]} if "shift" in case else {}
    if "top" in case:
        request |= {"logprobs": True, "top_logprobs": case["top"]}
    *chunks, last = server.stream("/api/generate", request)
    pieces = [text for chunk in [*chunks, last] if (text := chunk["response"])]
    answer: dict[str, Any] = {
        "pieces": pieces,
        "reason": last["done_reason"],
        "prompt_tokens": last["prompt_eval_count"],
        "output_tokens": last["eval_count"],
    }
    if "logprobs" in case:
        answer["logprobs"] = [_bare(entry) for chunk in chunks for entry in chunk.get("logprobs", ())]
    return answer


def _bare(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a log probability without its bytes."""
    kept = {"token": entry["token"], "logprob": entry["logprob"]}
    if tops := entry.get("top_logprobs"):
        kept["top_logprobs"] = [{"token": top["token"], "logprob": top["logprob"]} for top in tops]
    return kept


def images(server: Server, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Show the images of images.json again."""
    return [{**case, **_sight(server, case)} for case in recorded]


def _sight(server: Server, case: dict[str, Any]) -> dict[str, Any]:
    stems = (case["model"], case["projector"])
    model = server.create_once(f"record-{'-'.join(stems)}", *stems, template="{{ .Prompt }}")
    files = [base64.b64encode(png(*image)).decode() for image in case["images"]]
    options = {"num_predict": 12, "temperature": 0, "num_thread": 1, "num_ctx": 4096}
    request = {"model": model, "prompt": case["prompt"], "images": files, "options": options}
    answer = server.must("/api/generate", {**request, "raw": True, "stream": False})
    return {
        "text": answer["response"],
        "prompt_tokens": answer["prompt_eval_count"],
        "output_tokens": answer["eval_count"],
    }


def embeddings(server: Server, recorded: dict[str, list[float]]) -> dict[str, list[float]]:
    """Embed the texts of embeddings.json again."""
    model = server.create_once("record-embedder", "embedder")
    return {text: server.must("/api/embed", {"model": model, "input": text})["embeddings"][0] for text in recorded}
