"""Where a model lies: the addresses of its manifest, blobs and uploads."""

from dataclasses import dataclass
from urllib.parse import urlencode

from puna.models.name import ModelName
from puna.models.registry.origin import Origin


@dataclass(frozen=True, slots=True)
class Repository:
    """A model's place on a registry."""

    base: str
    """http://host:5000/v2/namespace/model"""

    @classmethod
    def of(cls, name: ModelName, *, insecure: bool) -> "Repository":
        """Return where a name points. The scheme that the user wrote does not count, as in the reference."""
        return cls(f"{'http' if insecure else 'https'}://{name.host}/v2/{name.namespace}/{name.model}")

    @property
    def origin(self) -> Origin:
        """The registry. Raises ValueError when the name's host is none."""
        return Origin.of(self.base)

    def manifest(self, tag: str) -> str:
        """Return the address of a manifest."""
        return f"{self.base}/manifests/{tag}"

    def blob(self, digest: str) -> str:
        """Return the address of a blob."""
        return f"{self.base}/blobs/{digest}"

    def uploads(self, digest: str = "", source: str = "") -> str:
        """Return where uploads begin; with `source`, namespace/model, the blob may be mounted from there instead."""
        query = "?" + urlencode({"from": source, "mount": digest}) if source else ""
        return f"{self.base}/blobs/uploads/{query}"

    def is_trusted(self, url: str) -> bool:
        """Say whether a request to `url` may show who asks: only the registry itself, by scheme, host and port."""
        return Origin.of(url) == self.origin
