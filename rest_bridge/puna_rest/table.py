"""The routes of the bridge: path, methods with their handlers, shape of errors."""

from typing import Final

from puna_rest import answers
from puna_rest.dashboard import assets
from puna_rest.routes import (
    anthropic,
    batches,
    blobs,
    cloud,
    embed,
    files,
    generate,
    jobs,
    models,
    openai,
    rank,
    responses,
    server,
    tokenize,
    transcriptions,
    web_rpc,
)
from puna_rest.routing import Handler, Route, Table


def _native(path: str, **handlers: Handler) -> Route:
    return Route(path, handlers, answers.native_error)


def _openai(path: str, **handlers: Handler) -> Route:
    return Route(path, handlers, answers.openai_error)


TABLE: Final = Table(
    (
        _native("/", HEAD=server.root, GET=server.root),
        _native("/api/version", HEAD=server.version, GET=server.version),
        _native("/api/status", GET=cloud.status),
        _native("/api/tags", HEAD=models.tags, GET=models.tags),
        _native("/api/ps", GET=models.ps),
        _native("/api/show", POST=models.show),
        _native("/api/generate", POST=generate.generate),
        _native("/api/chat", POST=generate.chat),
        _native("/api/embed", POST=embed.embed),
        _native("/api/embeddings", POST=embed.embeddings),
        _native("/api/pull", POST=jobs.pull),
        _native("/api/push", POST=jobs.push),
        _native("/api/create", POST=jobs.create),
        _native("/api/blobs/{}", HEAD=blobs.head, POST=blobs.upload),
        _native("/api/copy", POST=models.copy),
        _native("/api/delete", DELETE=models.delete),
        _native("/api/me", POST=cloud.me),
        _native("/api/signout", POST=cloud.signout),
        _native("/api/user/keys/{}", DELETE=cloud.signout),
        _native("/api/experimental/web_search", POST=cloud.web_search),
        _native("/api/experimental/web_fetch", POST=cloud.web_fetch),
        _native("/api/experimental/model-recommendations", GET=cloud.recommendations),
        _openai("/v1/chat/completions", POST=openai.chat),
        _openai("/v1/completions", POST=openai.completion),
        _openai("/v1/embeddings", POST=openai.embed),
        _openai("/v1/models", GET=openai.list_models),
        _openai("/v1/models/{}", GET=openai.get_model),
        _openai("/v1/responses", POST=responses.responses),
        _openai("/v1/files", GET=files.list_files, POST=files.create),
        _openai("/v1/files/{}", GET=files.get, DELETE=files.delete),
        _openai("/v1/files/{}/content", GET=files.content),
        _openai("/v1/batches", GET=batches.list_batches, POST=batches.create),
        _openai("/v1/batches/{}", GET=batches.get),
        _openai("/v1/batches/{}/cancel", POST=batches.cancel),
        _openai("/v1/audio/transcriptions", POST=transcriptions.transcriptions),
        Route("/v1/messages", {"POST": anthropic.messages}, anthropic.error),
        Route("/v1/messages/count_tokens", {"POST": anthropic.count_tokens}, anthropic.error),
        _native("/api/tokenize", POST=tokenize.tokenize),
        _native("/api/detokenize", POST=tokenize.detokenize),
        _openai("/v1/rerank", POST=rank.rerank),
        *(Route(path, {"GET": web_rpc.get, "POST": web_rpc.call}, web_rpc.error) for path in web_rpc.PATHS),
    )
)
_METRICS: Final = _native("/metrics", GET=server.metrics)


def served(*, metrics: bool, dashboard: bool) -> Table:
    """Return the routes of a server: all that Ollama has, and those that the operator's settings add."""
    return TABLE.and_routes(*([_METRICS] if metrics else ()), *(assets.routes() if dashboard else ()))
