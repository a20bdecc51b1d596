"""Signed messages: what verifies, and every change that makes it not."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from schemas import topics
from schemas.errors import BadInput
from schemas.signing import host_key, refusal, signature
from streams.fleet.partition import Message, Partition, accept
from tasktrail.keys import keys, read_key

MASTER, HOST, OTHER = bytes(range(32)), "0f8e8a52-8d0c-4d54-9f0b-6a1c30a0b1de", "11111111-8d0c-4d54-9f0b-6a1c30a0b1de"
HEADERS = {topics.VERSION: b"1", topics.SESSION: b"s" * 8, topics.SEQUENCE: topics.sequence(1, 0), topics.MACHINE: b"m" * 8}


def signed(host: str = HOST, value: bytes = b"a batch") -> tuple[bytes, dict[str, bytes], bytes]:
    key = host_key(MASTER, host)
    return host.encode(), {**HEADERS, topics.SIGNATURE: signature(key, host.encode(), HEADERS, value)}, value


def test_what_a_host_signed_is_taken() -> None:
    assert refusal(MASTER, *signed()) == ""


@pytest.mark.parametrize("name", [topics.VERSION, topics.SESSION, topics.SEQUENCE, topics.MACHINE, topics.SIGNATURE])
def test_no_header_that_says_who_sends_can_be_changed(name: str) -> None:
    key, headers, value = signed()
    assert refusal(MASTER, key, {**headers, name: headers[name] + b"x"}, value)
    del headers[name]
    assert refusal(MASTER, key, headers, value)


def test_neither_value_nor_host_nor_master_can_be_another() -> None:
    key, headers, value = signed()
    assert refusal(MASTER, key, headers, value + b"x")
    assert refusal(MASTER, OTHER.encode(), headers, value)
    assert refusal(MASTER[::-1], key, headers, value)
    assert refusal(MASTER, b"\xff", headers, value) == "its key is no host_id"


def test_the_same_bytes_cut_elsewhere_are_another_message() -> None:
    key, headers, value = signed(value=b"xa batch")
    moved = {**headers, topics.MACHINE: headers[topics.MACHINE] + b"x"}
    assert refusal(MASTER, key, moved, value[1:])


def test_a_message_that_is_refused_is_a_dead_letter_and_joins_nothing() -> None:
    partition = Partition(0, lambda message: accept(message) or refusal(MASTER, message.key, message.headers, message.value))
    key, headers, value = signed()
    taken = partition.take(Message(0, key, value, {**headers, topics.SIGNATURE: bytes(32)}))
    assert taken.refused and taken.reason == "its signature is not that of the host"
    taken = partition.take(Message(1, key, value, {topics.VERSION: b"2"}))
    assert taken.refused and "version b'2'" in taken.reason
    taken = partition.take(Message(2, key, value, headers))
    assert not taken.refused and "batch header" in taken.reason, "what verifies may still be no batch"


def written(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_keys_that_commands_print_are_those_that_verify(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        return CliRunner().invoke(keys, list(words), catch_exceptions=False).output

    master = written(tmp_path / "master", run("new"))
    assert read_key(written(tmp_path / "host", run("host", "--master", master, HOST.upper()))) == host_key(read_key(master), HOST)
    assert run("new") != run("new")


@pytest.mark.parametrize(
    ("text", "mode", "says"), [("ab", 0o600, "64 hex digits"), ("0" * 64, 0o644, "everybody"), ("g" * 64, 0o600, "64 hex")]
)
def test_a_key_file_that_is_none_is_refused(tmp_path: Path, text: str, mode: int, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_key(written(tmp_path / "key", text, mode))
    with pytest.raises(BadInput, match=os.strerror(2)):
        read_key(str(tmp_path / "nothing"))
