"""Stands between a client and a ClickHouse, and does to their conversation what networks and servers do."""

import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from store.address import Address

Spoil = Callable[["Talk", bytes], bool]
"""Called with what a side said; True: it is dealt with and not passed on."""
_TOKEN = re.compile(rb"insert_deduplication_token[\x00-\x04]*(.)", re.DOTALL)


def exception(code: int, message: bytes = b"DB::Exception: said by the test") -> bytes:
    """The packet of a server's exception (type 2; code, name, message, stack trace, nothing nested), as clients from 2016 on read it."""
    texts = (b"DB::Exception", message, b"")
    return b"\x02" + struct.pack("<i", code) + b"".join(bytes([len(text)]) + text for text in texts) + b"\x00"


class Talk:
    """One connection through the proxy.

    said       all that the client has sent
    inserting  it has sent an INSERT
    """

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.said = b""

    @property
    def inserting(self) -> bool:
        """The client has sent an INSERT."""
        return b"INSERT INTO " in self.said

    def cut(self) -> bool:
        """End both sides."""
        for side in (self.client, self.server):
            # Closing would not wake the thread that waits for what this side says.
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        return True

    def answer(self, data: bytes) -> bool:
        """Say something in the server's place."""
        self.client.sendall(data)
        return True


class Proxy:
    """Passes everything on, but what ``from_client`` or ``from_server`` deal with. Each connection is kept in ``talks``."""

    def __init__(self, there: Address, tls: ssl.SSLContext | None = None) -> None:
        self.from_client: Spoil = lambda talk, data: False
        self.from_server: Spoil = lambda talk, data: False
        self.talks: list[Talk] = []
        self._there = there
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = there._replace(host="127.0.0.1", port=int(self._listening.getsockname()[1]))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def tokens(self) -> list[bytes]:
        """The tokens of the inserts, in the order of the connections."""
        found = []
        for talk in list(self.talks):
            for match in _TOKEN.finditer(talk.said):
                start = match.end()
                found.append(talk.said[start : start + match[1][0]])
        return found

    def close(self) -> None:
        """Take no more connections and end those there are."""
        self._listening.close()
        for talk in self.talks:
            talk.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._tls:
                client = self._tls.wrap_socket(client, server_side=True)
            talk = Talk(client, socket.create_connection((self._there.host, self._there.port)))
        except OSError:
            client.close()
            return
        self.talks.append(talk)
        threading.Thread(target=self._pump, args=(talk, talk.server, client, False), daemon=True).start()
        self._pump(talk, client, talk.server, True)

    def _pump(self, talk: Talk, source: socket.socket, target: socket.socket, of_client: bool) -> None:
        try:
            while data := source.recv(65536):
                if of_client:
                    talk.said += data
                if not (self.from_client if of_client else self.from_server)(talk, data):
                    target.sendall(data)
        except OSError:
            pass
        talk.cut()
