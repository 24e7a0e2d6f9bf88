"""The type of a loaded model that runs in a host process."""

from abc import abstractmethod

from puna.backend import LoadedModel


class HostedModel(LoadedModel):
    """A loaded model and the process that it runs in."""

    @property
    def node(self) -> str:
        """Address of the node on which the host runs; empty: this machine."""
        return ""

    @property
    def process_id(self) -> int:
        """Process id of the host on the machine on which it runs; 0 if it has none."""
        return self.pid

    @property
    @abstractmethod
    def pid(self) -> int:
        """Process id of the host; 0 if it has none."""
