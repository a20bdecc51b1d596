"""A wire before a ClickHouse that is cut when the server says that an insert is done: its rows are stored, and nobody is told so."""

import contextlib
import select
import socket
import threading

INSERT = b"INSERT INTO"
END_OF_STREAM = b"\x05"
"""The last packet of an answer (ClickHouse, Core/Protocol.h); that to an insert comes when all its rows are stored."""


class StoreWire(threading.Thread):
    """Carries connections from a port of 127.0.0.1 to a server.

    A test may set at any time: ``cuts``, how many answers to inserts are still lost."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        super().__init__(daemon=True)
        self.cuts = self.cut = 0
        self._to = (host, port)
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
        with near, socket.create_connection(self._to) as far, contextlib.suppress(OSError):
            inserting = False
            while True:
                ready, _, _ = select.select([near, far], [], [])
                if near in ready:
                    data = near.recv(1 << 16)
                    far.sendall(data)
                    inserting = inserting or INSERT in data
                    if not data:
                        return
                if far in ready:
                    data = far.recv(1 << 16)
                    done = inserting and data.endswith(END_OF_STREAM)
                    if not data or (done and self._to_be_cut()):
                        return
                    near.sendall(data)
                    inserting = inserting and not done

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
