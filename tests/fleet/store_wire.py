"""A wire before a ClickHouse that is cut when the server answers to data: what was sent is stored, and whoever sent it does not know."""

import contextlib
import select
import socket
import threading

MUCH_BYTES = 1024
"""More than any request without rows."""


class StoreWire(threading.Thread):
    """Carries connections to a port of 127.0.0.1. A test may set at any time: ``cuts``, how many answers to rows are still to be lost."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.cuts = self.cut = 0
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.start()

    def run(self) -> None:
        """Take connections until it is closed."""
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._to)) as far, contextlib.suppress(OSError):
            unanswered = 0
            while True:
                ready, _, _ = select.select([near, far], [], [])
                if near in ready:
                    data = near.recv(1 << 16)
                    far.sendall(data)
                    unanswered += len(data)
                    if not data:
                        return
                if far in ready:
                    data = far.recv(1 << 16)
                    if not data or (unanswered > MUCH_BYTES and self._to_be_cut()):
                        return
                    near.sendall(data)
                    unanswered = 0

    def _to_be_cut(self) -> bool:
        if self.cuts <= 0:
            return False
        self.cuts -= 1
        self.cut += 1
        return True

    def close(self) -> None:
        """Take no more connections."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
