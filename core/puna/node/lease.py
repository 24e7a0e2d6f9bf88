"""The lease of a node: which core it serves, and the hosts that it runs for that core."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from puna.node.file_cache import HeldFile
from puna.runtime import model_folders
from puna.runtime.host_process import HostProcess

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 0.25
"""Pause between two looks whether the lease has run out."""

ABANDONED_SECONDS: Final = 1.5
"""Time without a renewal after which another core may take a lease that has no hosts. A core renews twice a second."""


class LeaseHeldError(Exception):
    """Another core holds the lease."""


@dataclass(slots=True)
class NodeHost:
    """A host of the lease."""

    process: HostProcess
    socket: Path
    folders: list[str] = field(default_factory=list)
    """Folders of its models' files."""
    files: dict[str, HeldFile] = field(default_factory=dict)
    """Its models' files by digest. They stay in the cache while it runs."""
    fetching: "set[asyncio.Task[None]]" = field(default_factory=set)
    """Tasks that fetch further files."""

    async def end(self) -> None:
        """End the process, remove the folders, and let the cache remove the files."""
        for task in self.fetching:
            task.cancel()
        await self.process.stop()
        await asyncio.gather(*self.fetching, return_exceptions=True)
        files, self.files = list(self.files.values()), {}
        for file in files:
            file.release()
        for each in self.folders:
            model_folders.remove(each)


@dataclass(slots=True)
class Lease:
    """The lease that a core holds."""

    lease_id: str
    core_id: str
    core_name: str
    until: float
    """When it runs out, by the monotonic clock."""
    renewed_at: float = 0.0
    """When it was renewed last, by the monotonic clock."""
    hosts: dict[str, NodeHost] = field(default_factory=dict)

    @property
    def abandoned(self) -> bool:
        """True if another core may take the lease.

        A core that was killed closes its connections, which ends its hosts. Then nothing speaks for the rest of its
        lease, so a core that is started in its place need not wait for that.
        """
        return not self.hosts and time.monotonic() - self.renewed_at >= ABANDONED_SECONDS

    async def end(self) -> None:
        """End its hosts."""
        hosts, self.hosts = list(self.hosts.values()), {}
        await asyncio.gather(*(each.end() for each in hosts))


class LeaseHolder:
    """The lease of this node, which one core holds at a time."""

    def __init__(self, seconds: float) -> None:
        """`seconds` is how long a lease lasts unless it is renewed."""
        self.seconds = seconds
        self._lease: Lease | None = None
        self.taken = asyncio.Event()
        """Set once a core has taken the lease."""
        self.ended = asyncio.Event()
        """Set once a lease has run out or was given back."""

    async def renew(self, lease_id: str, core_id: str, core_name: str) -> None:
        """Take or renew the lease. Raises LeaseHeldError if another core holds it.

        Waits for the next renewal of another core whose lease has no hosts, at most ABANDONED_SECONDS, since that core
        may have been killed a moment ago.
        """
        asked_at = time.monotonic()
        while (lease := self._lease) is not None and lease.core_id != core_id and not lease.abandoned:
            if lease.hosts or lease.renewed_at > asked_at:
                raise LeaseHeldError(
                    f"the node serves another core, {lease.core_name}; its lease ends {self.seconds:g} s after the core"
                )
            await asyncio.sleep(CHECK_SECONDS)
        now = time.monotonic()
        if lease is not None and lease.lease_id == lease_id:
            lease.until, lease.renewed_at = now + self.seconds, now
            return
        # Set before the old hosts have ended, so that nobody else takes the lease meanwhile.
        self._lease = Lease(lease_id, core_id, core_name, now + self.seconds, now)
        self.taken.set()
        log.info("core %s takes the lease", core_name)
        if lease is not None:
            await lease.end()

    def held(self, lease_id: str) -> Lease | None:
        """Return the lease of this id; None if it is not held any more."""
        return self._lease if self._lease is not None and self._lease.lease_id == lease_id else None

    async def release(self, lease_id: str) -> None:
        """End the lease of this id and its hosts. Does nothing if it is not held."""
        lease = self.held(lease_id)
        if lease is not None:
            log.info("core %s gives the lease back", lease.core_name)
            self._lease = None
            await lease.end()
            self.ended.set()

    async def watch(self) -> None:
        """End leases that run out, for ever."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            lease = self._lease
            if lease is not None and time.monotonic() >= lease.until:
                log.warning(
                    "core %s is gone: it has not renewed its lease for %g s; its %d hosts end",
                    lease.core_name,
                    self.seconds,
                    len(lease.hosts),
                )
                self._lease = None
                await lease.end()
                self.ended.set()

    async def aclose(self) -> None:
        """End the lease."""
        lease, self._lease = self._lease, None
        if lease is not None:
            await lease.end()
