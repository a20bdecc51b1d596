"""Secrets in arguments are overwritten, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.masking import NO_MASKING, SECRETS, Masking
from schemas.batch import frame, frames
from schemas.errors import BadInput
from schemas.events import EXEC, SEEN, Exec, Flag, Kind, decode_record
from tests.unit.test_wire_vectors import vector

SECRET = b"hunter2-\xff\xfe"


def exec_record(argv: bytes) -> bytes:
    """An EXEC record with these arguments."""
    head = (Kind.EXEC, 1, 0, 0, 7, 4711, 1, 2, 3, 0)
    return EXEC.pack(*head, *range(4), *range(17), b"comm", len(argv), 4, 0, 0, 0, 0, 0, 0) + argv + b"/x/y"


def argv_of(*arguments: bytes) -> bytes:
    """Arguments as they lie in memory."""
    return b"".join(one + b"\0" for one in arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        (b"mysql", b"--password=" + SECRET),
        (b"mysql", b"--password", SECRET, b"-h"),
        (b"env", b"PGPASSWORD=" + SECRET, b"psql"),
        (b"curl", b"https://anna:" + SECRET + b"@host/path"),
        (b"curl", b"-H", b"Authorization: Bearer " + SECRET),
        (b"curl", b"https://host/?api_key=" + SECRET + b"&x=1"),
        (b"tool", b'{"token": "' + SECRET + b'"}'),
        (b"aws", b"--aws-secret-access-key", SECRET),
        (b"tool", b"--TOKEN=" + SECRET),
    ],
)
def test_secrets_by_their_usual_names(arguments: tuple[bytes, ...]) -> None:
    masking = Masking([SECRETS])
    argv = argv_of(*arguments)
    masked = masking.arguments(argv)
    assert SECRET not in masked
    assert masked == argv.replace(SECRET, b"*" * len(SECRET))
    assert masking.masked == 1


@pytest.mark.parametrize(
    "arguments", [(b"ssh", b"-p", b"22", b"host"), (b"mkdir", b"-p", b"a/b"), (b"passwd", b"anna"), (b"ls", b"/etc/passwd"), ()]
)
def test_what_is_no_secret_stays(arguments: tuple[bytes, ...]) -> None:
    masking = Masking([SECRETS])
    assert masking.arguments(argv_of(*arguments)) == argv_of(*arguments)
    assert masking.masked == 0


def test_a_pattern_of_ones_own() -> None:
    masking = Masking(["--pin=([0-9]+)", "geheim"])
    assert masking.arguments(argv_of(b"x", b"--pin=1234z", b"geheimer")) == argv_of(b"x", b"--pin=****z", b"******er")
    with pytest.raises(BadInput, match="argv_mask"):
        Masking(["("])


def test_records_say_that_they_were_masked_and_keep_their_places() -> None:
    records = [exec_record(argv_of(b"a", b"b")), exec_record(argv_of(b"a", b"--password=" + SECRET)), vector("fork")[0], vector("exit")[0]]
    body = b"".join(map(frame, records))
    masked = Masking([SECRETS]).body(body)
    assert list(frames(masked)) == list(frames(body))
    before = [decode_record(body, at, size) for at, size in frames(body)]
    after = [decode_record(masked, at, size) for at, size in frames(masked)]
    assert after[0] == before[0] and after[2:] == before[2:]
    changed = after[1]
    assert isinstance(changed, Exec)
    assert changed.argv == (b"a", b"--password=" + b"*" * len(SECRET))
    assert changed == before[1]._replace(argv=changed.argv, flags=before[1].flags | Flag.ARGV_MASKED)


def test_what_a_snapshot_saw_is_masked_too() -> None:
    data, values = vector("seen")
    argv = b"\0".join(values["argv"])
    masked = Masking([argv[:1].decode("latin-1")]).body(frame(data))
    record = decode_record(masked, 8, len(data))
    assert record.flags & Flag.ARGV_MASKED and b"\0".join(record.argv)[:1] == b"*"  # type: ignore[union-attr]
    assert len(data) > SEEN.size


def test_without_patterns_nothing_is_looked_at() -> None:
    assert not NO_MASKING
    assert NO_MASKING.body(b"no records") == b"no records"


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_framing_and_length_never_change(contents: list[bytes], own: bool) -> None:
    masking = Masking([SECRETS, "."] if own else [SECRETS])
    records = [exec_record(argv) for argv in contents]
    body = b"".join(map(frame, records))
    masked = masking.body(body)
    assert len(masked) == len(body) and list(frames(masked)) == list(frames(body))
    for at, size in frames(masked):
        record = decode_record(masked, at, size)
        assert isinstance(record, Exec)
        assert len(record.argv) == len(decode_record(body, at, size).argv)  # type: ignore[union-attr]
        if not record.flags & Flag.ARGV_MASKED:
            assert masked[at : at + size] == body[at : at + size]
