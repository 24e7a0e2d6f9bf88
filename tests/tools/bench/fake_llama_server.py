"""A program that speaks llama-server's API and says one word again and again: `fake_llama_server.py PORT MODEL`.

With --embeddings behind, it embeds too.
"""

import asyncio
import json
import sys

from aiohttp import web

PORT, MODEL, *MORE = sys.argv[1:]


async def told(request):
    return web.json_response({"model_path": MODEL, "build_info": "b1"})


async def events(request, chunks):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for chunk in chunks:
        await response.write(b"data: " + chunk + b"\n\n")
        await asyncio.sleep(0.001)
    return response


async def complete(request):
    body = await request.json()
    assert body["stream"]
    assert body["top_k"] == 40
    count = body["n_predict"]
    chunks = [{"content": " fox", "stop": False}] * count
    chunks.append({"content": "", "stop": True, "tokens_predicted": count, "tokens_evaluated": len(body["prompt"])})
    return await events(request, [json.dumps(chunk).encode() for chunk in chunks])


async def chat(request):
    body = await request.json()
    assert body["stream_options"]["include_usage"]
    count = body["max_tokens"]
    chunks = [{"choices": [{"delta": {"content": " fox"}}]}] * count
    chunks.append({"choices": [], "usage": {"completion_tokens": count, "prompt_tokens": len(body["messages"])}})
    lines = [json.dumps(chunk, separators=(",", ":")).encode() for chunk in chunks]
    return await events(request, [*lines, b"[DONE]"])


async def embed(request):
    assert "--embeddings" in MORE
    inputs = (await request.json())["input"]
    return web.json_response({"data": [{"index": index, "embedding": [1.0]} for index in range(len(inputs))]})


application = web.Application()
application.router.add_get("/health", told)
application.router.add_get("/props", told)
application.router.add_post("/completion", complete)
application.router.add_post("/v1/chat/completions", chat)
application.router.add_post("/v1/embeddings", embed)
web.run_app(application, host="127.0.0.1", port=int(PORT), print=None)
