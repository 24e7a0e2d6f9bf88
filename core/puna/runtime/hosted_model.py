"""The type of a loaded model that runs in a host process."""

from abc import abstractmethod

from puna.backend import LoadedModel


class HostedModel(LoadedModel):
    """A loaded model and the process that it runs in."""

    @property
    @abstractmethod
    def pid(self) -> int:
        """Process id of the host; 0 if it has none."""
