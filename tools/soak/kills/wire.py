"""A wire between this network namespace and another one, with delay and loss, which can be cut.

The kernel's own means, tc with netem, is a module that many machines lack. So each end is a TUN device, and this
process passes the packets on.
"""

import asyncio
import fcntl
import os
import random
import struct
import subprocess
from functools import partial
from typing import Final

TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000
LARGEST_PACKET: Final = 1 << 16
PACKETS: Final = 64
"""Packets of one end that are passed on before the other end has its turn."""


def ip(*words: str) -> None:
    """Run iproute2. Raises CalledProcessError."""
    subprocess.run(["ip", *words], check=True)


class Wire:
    """Connects 198.18.N.1 in this namespace with 198.18.N.2 in a new one. Needs a network namespace of its own."""

    def __init__(self, number: int, draw: random.Random) -> None:
        """Make the namespace, and begin to pass packets on."""
        self.namespace = f"node{number}"
        self.address = f"198.18.{number}.2"
        self.delay_seconds = 0.0
        self.loss = 0.0
        """The part of the packets that is lost, in each direction; 1: the wire is cut."""
        self._draw = draw
        ip("netns", "add", self.namespace)
        here, there = f"here{number}", f"there{number}"
        self._ends = _tun(here), _tun(there)
        ip("link", "set", there, "netns", self.namespace)
        ip("addr", "add", f"198.18.{number}.1", "peer", self.address, "dev", here)
        ip("-n", self.namespace, "addr", "add", self.address, "peer", f"198.18.{number}.1", "dev", there)
        ip("link", "set", here, "up")
        for each in (there, "lo"):
            ip("-n", self.namespace, "link", "set", each, "up")
        loop = asyncio.get_running_loop()
        for end, other in (self._ends, self._ends[::-1]):
            loop.add_reader(end, self._pass_on, end, other)

    def _pass_on(self, end: int, other: int) -> None:
        for _ in range(PACKETS):
            try:
                packet = os.read(end, LARGEST_PACKET)
            except BlockingIOError:
                return
            if self._draw.random() < self.loss:
                continue
            if self.delay_seconds:
                asyncio.get_running_loop().call_later(self.delay_seconds, partial(_write, other, packet))
            else:
                _write(other, packet)

    def heal(self) -> None:
        """Pass everything on at once from now on."""
        self.delay_seconds = self.loss = 0.0

    def close(self) -> None:
        """Remove the wire. The namespace ends with that of this process."""
        for each in self._ends:
            asyncio.get_running_loop().remove_reader(each)
            os.close(each)


def _write(end: int, packet: bytes) -> None:
    try:
        os.write(end, packet)
    except OSError:
        return  # a wire may lose packets


def _tun(name: str) -> int:
    """Make a TUN device; return its file descriptor. Raises OSError."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return end
