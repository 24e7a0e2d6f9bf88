"""Where a model lies: the addresses of its manifest, blobs and uploads."""

from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from puna.models.name import ModelName


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
    def host(self) -> str:
        """Host, and port if there is one."""
        return urlsplit(self.base).netloc

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
        """Whether a request to `url` may show who asks: the same host, and not in the clear if it was not before."""
        own, other = urlsplit(self.base), urlsplit(url)
        return own.hostname == other.hostname and (other.scheme == "https" or own.scheme == "http")
