"""A model's place on a registry: the addresses of its manifest, blobs and uploads."""

from dataclasses import dataclass
from urllib.parse import urlencode

from puna.model_name import ModelName
from puna.models.registry.origin import Origin


@dataclass(frozen=True, slots=True)
class Repository:
    """A model's place on a registry."""

    base: str
    """http://host:5000/v2/namespace/model"""

    @classmethod
    def of(cls, name: ModelName, *, insecure: bool) -> "Repository":
        """Return the repository of a name. The scheme in the name does not count, as in Ollama."""
        return cls(f"{'http' if insecure else 'https'}://{name.host}/v2/{name.namespace}/{name.model}")

    @property
    def origin(self) -> Origin:
        """The registry's origin. Raises ValueError if the name's host is invalid."""
        return Origin.of(self.base)

    def manifest(self, tag: str) -> str:
        """Return the address of a manifest."""
        return f"{self.base}/manifests/{tag}"

    def blob(self, digest: str) -> str:
        """Return the address of a blob."""
        return f"{self.base}/blobs/{digest}"

    def uploads(self, digest: str = "", source: str = "") -> str:
        """Return the address that opens an upload. The registry may mount the blob from `source` (namespace/model)
        instead."""
        query = "?" + urlencode({"from": source, "mount": digest}) if source else ""
        return f"{self.base}/blobs/uploads/{query}"

    def is_trusted(self, url: str) -> bool:
        """Return whether `url` has the scheme, host and port of the registry, so that it may get credentials."""
        return Origin.of(url) == self.origin
