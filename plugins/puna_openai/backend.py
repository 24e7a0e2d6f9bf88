"""The backend: the upstreams of the configuration, and the models there."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from puna.backend import Backend, BackendError, LoadedModel, ModelSpec, UpstreamModel
from puna_openai.answers import NonsenseError
from puna_openai.client import UpstreamClient
from puna_openai.failures import FAILURES, translated
from puna_openai.model import OpenAIModel
from puna_openai.upstream import Upstream, split, upstreams

log = logging.getLogger(__name__)

MOST_MODELS = 10_000
"""Models of one upstream that are listed."""


class OpenAIBackend(Backend):
    """Serves models of upstreams that speak OpenAI's API. One process serves all of them."""

    def __init__(self) -> None:
        self._clients: list[tuple[Upstream, UpstreamClient]] = []
        self._down: dict[str, str] = {}
        """Upstreams that could not be asked for their models, with the reason."""
        self._listed: dict[str, list[UpstreamModel]] = {}
        """The models of each upstream when it was last asked."""

    async def load(self, spec: ModelSpec, report: Callable[[float], None], /) -> LoadedModel:
        """Return a model. The upstream is not asked, so that it may be down now and serve later."""
        upstream, model = split(spec.upstream, upstreams(spec.backend_options))
        report(1.0)
        return OpenAIModel(upstream, model, self._client(upstream))

    async def models(self, options: Mapping[str, object], /) -> list[UpstreamModel]:
        """Return the models of all upstreams. An upstream that is down has those that it had before.

        Raises BackendError if there is no model, and every upstream is down.
        """
        known = [each for each in upstreams(options).values() if each.lists]
        found = await asyncio.gather(*map(self._models, known))
        failures = [self._down.get(each.name, "") for each in known]
        if failures and all(failures) and not any(found):
            raise BackendError("; ".join(failures))
        return [model for models in found for model in models]

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._clients = self._clients, []
        await asyncio.gather(*(client.aclose() for _, client in clients), return_exceptions=True)

    def _client(self, upstream: Upstream) -> UpstreamClient:
        # The whole configuration counts: an upstream that was configured anew gets new connections.
        for known, client in self._clients:
            if known == upstream:
                return client
        client = UpstreamClient(upstream)
        self._clients.append((upstream, client))
        return client

    async def _models(self, upstream: Upstream) -> list[UpstreamModel]:
        try:
            names = _names(await self._client(upstream).models())
        except FAILURES as error:  # whatever is wrong with one upstream, the others are listed
            self._report(upstream, str(translated(upstream, "", error)))
        else:
            self._report(upstream, "")
            self._listed[upstream.name] = [_listed(upstream, name) for name in names if upstream.shows(name)]
        return self._listed.get(upstream.name, [])

    def _report(self, upstream: Upstream, reason: str) -> None:
        """Log that an upstream is down or up again, once for each change."""
        if self._down.get(upstream.name, "") != reason:
            if reason:
                log.warning("the models of an upstream are not listed: %s", reason)
            else:
                log.info("upstream %r answers again", upstream.name)
            self._down[upstream.name] = reason


def _listed(upstream: Upstream, name: str) -> UpstreamModel:
    can = [each for each in ("vision", "tools", "thinking", "embedding", "audio") if each in upstream.capabilities]
    return UpstreamModel(
        name=f"{upstream.name}/{name}",
        capabilities=("completion", *can),
        context_length=upstream.context_length,
    )


def _names(answer: object) -> list[str]:
    """Return the ids in a list of models. Raises NonsenseError."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or len(data) > MOST_MODELS:
        raise NonsenseError("it is no list of models")
    ids = [each.get("id") for each in data if isinstance(each, dict)]
    # A name is shown in terminals and logs, so it must be one line of ordinary length.
    return [each for each in ids if isinstance(each, str) and each.isprintable() and 0 < len(each) <= 200]
