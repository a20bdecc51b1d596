"""Signatures of messages: a host signs what it ships with its own key, and whoever joins it refuses what does not verify.

Every host's key follows from one master key, so workers need that alone, and whoever takes a host's key can speak for this host only.
"""

import hashlib
import hmac
from collections.abc import Mapping

from schemas import topics

KEY_BYTES = 32
_SIGNED = (topics.VERSION, topics.SESSION, topics.SEQUENCE, topics.MACHINE)


def host_key(master: bytes, host_id: str) -> bytes:
    """The key of a host: HMAC-SHA-256 of its host_id (text in small letters) under the master key."""
    return hmac.digest(master, b"tasktrail host key\0" + host_id.lower().encode(), "sha256")


def signature(key: bytes, message_key: bytes, headers: Mapping[str, bytes], value: bytes) -> bytes:
    """HMAC-SHA-256 over the message's key, its headers that say who sends it, and its value, each after its length (u32, little-endian)."""
    signing = hmac.new(key, digestmod=hashlib.sha256)
    for part in (message_key, *(headers.get(name, b"") for name in _SIGNED), value):
        signing.update(len(part).to_bytes(4, "little"))
        signing.update(part)
    return signing.digest()


def refusal(master: bytes, message_key: bytes, headers: Mapping[str, bytes], value: bytes) -> str:
    """Why the message is not taken for the host's own; empty if it is."""
    given = headers.get(topics.SIGNATURE)
    if given is None:
        return "it is not signed"
    try:
        key = host_key(master, message_key.decode("ascii"))
    except UnicodeDecodeError:
        return "its key is no host_id"
    return "" if hmac.compare_digest(given, signature(key, message_key, headers, value)) else "its signature is not that of the host"
