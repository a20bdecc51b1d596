"""A wire between this machine and a network namespace: two TUN devices, and a thread that carries packets, late, and loses some."""

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from pathlib import Path

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_numbers = itertools.count(1)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


class Wire(threading.Thread):
    """A namespace that reaches us at ``here`` only. A test may set at any time: ``down``, ``delay_s`` one way, ``loss`` from 0 to 1."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        number = f"{os.getpid() % 10_000}{next(_numbers)}"
        self.namespace = f"tasktrail{number}"
        block = f"10.{os.getpid() % 250}.{next(_numbers) % 250}"
        self.here, there = f"{block}.1", f"{block}.2"
        self.down, self.delay_s, self.loss, self.lost = False, 0.0, 0.0, 0
        self._ending, self._ender = os.pipe()
        self._chance = random.Random(1)
        near, far = f"tt{number}a", f"tt{number}b"
        self._fds = (_tun(near), _tun(far))
        _ip("netns", "add", self.namespace)
        _ip("addr", "add", self.here, "peer", there, "dev", near)
        _ip("link", "set", near, "up")
        _ip("link", "set", far, "netns", self.namespace)
        _ip("-n", self.namespace, "addr", "add", there, "peer", self.here, "dev", far)
        _ip("-n", self.namespace, "link", "set", far, "up")
        self.prefix = ("nsenter", f"--net={Path('/run/netns') / self.namespace}")

    def run(self) -> None:
        """Carry packets until it is closed."""
        under_way: list[tuple[float, int, int, bytes]] = []
        order = itertools.count()
        while True:
            timeout = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
            ready, _, _ = select.select([self._ending, *self._fds], [], [], timeout)
            if self._ending in ready:
                return
            now = time.monotonic()
            for fd in ready:
                packet = os.read(fd, 65_536)
                if self.down or self._chance.random() < self.loss:
                    self.lost += 1
                    continue
                other = self._fds[1 - self._fds.index(fd)]
                heapq.heappush(under_way, (now + self.delay_s, next(order), other, packet))
            while under_way and under_way[0][0] <= now:
                _, _, other, packet = heapq.heappop(under_way)
                try:
                    os.write(other, packet)
                except BlockingIOError:
                    self.lost += 1  # its queue is full, as a wire's may be

    def __enter__(self) -> "Wire":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._ender, b".")
        self.join()
        for fd in (*self._fds, self._ending, self._ender):
            os.close(fd)
        _ip("netns", "del", self.namespace)
