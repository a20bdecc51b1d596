"""What a process calls itself cannot do anything on a terminal, and can be taken back exactly."""

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries.history import Origin, Step, readable
from queries.quoting import command_line, quote_argument, quote_name, quote_text, unquote
from schemas.identity import NIL

NASTY = [
    b"",
    b" ",
    b"a b",
    b" a",
    b"a ",
    b"?",
    b"(sd-pam)",
    b"a(1) > b",
    b"=>name=x",
    b"'",
    b'"',
    b"$'x'",
    b"\\",
    b"\\x41",
    b"a\nb",
    b"\x1b[31mred",
    b"\x1b]0;title\x07",
    b"\x9b2J",
    "\u009b2J".encode(),
    b"\xff\xfe",
    "\u202egnp.exe".encode(),
    "\u2066a\u2069".encode(),
    "שלום".encode(),
    "a\u0301".encode(),
    b"\xcc\x81",
    "（1）".encode(),
    "＇".encode(),
    "\u3164".encode(),
    "\u00a0".encode(),
    "\ud7ff\U0001f525".encode(),
    "…".encode(),
    b"\xed\xa0\x80",
    b"-rf",
    b"~",
    b"#",
    b"a#b",
    b"!x",
    b"*",
    b"{a,b}",
    b"a=b",
]
names = st.one_of(
    st.binary(max_size=15),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(NASTY),
    st.lists(st.sampled_from([b"'", b"\\", b"(", b")", b" > ", b"x", b"\\x41", b"$'", "é".encode(), b"\n"]), max_size=6).map(b"".join),
)
quoters = st.sampled_from([quote_name, quote_argument, quote_text])


@given(quoters, names)
def test_quoted_form_is_taken_back_exactly(quote: Callable[[bytes], str], name: bytes) -> None:
    assert unquote(quote(name)) == name


@given(quoters, names, names)
def test_different_names_are_shown_differently(quote: Callable[[bytes], str], one: bytes, other: bytes) -> None:
    assert (quote(one) == quote(other)) == (one == other)


@given(quoters, names)
def test_nothing_shown_can_move_colour_or_reorder(quote: Callable[[bytes], str], name: bytes) -> None:
    shown = quote(name)
    shown.encode("utf-8")
    for char in shown:
        assert char.isprintable()
        assert unicodedata.bidirectional(char) not in {"R", "AL", "AN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


ELEMENT = re.compile(r"(?:(\$'(?:[^'\\]|\\.)*'|'[^']*'|[^'()>$]*?)(?:\((\d+)\))?|\?)(?: > |$)")


def parse(chain: str) -> list[tuple[str, int]]:
    """Elements of a readable chain, as a person's eye takes them apart: quotes first."""
    result, at = [], 0
    while at < len(chain):
        found = ELEMENT.match(chain, at)
        assert found, chain[at:]
        result.append((found[1], int(found[2] or 0)))
        at = found.end()
    return result


@given(st.lists(st.tuples(st.one_of(st.none(), names), st.integers(1, 4_194_304)), min_size=1, max_size=6))
def test_a_readable_chain_can_be_taken_apart_whatever_the_names_are(processes: list[tuple[bytes | None, int]]) -> None:
    chain = readable(Step(tgid, comm, 0, NIL, 0, Origin.ROW) for comm, tgid in processes)
    taken = [(None if shown == "?" else unquote(shown), tgid) for shown, tgid in parse(chain)]
    assert taken == processes


@pytest.mark.parametrize(
    "name", ["systemd", "kworker/0:1H", "tmux: server", "cc1", "python3.11", "café", "日本", "a-b_c+d@e.f", "Web Content"]
)
def test_plain_names_stay_plain(name: str) -> None:
    assert quote_name(name.encode()) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"(sd-pam)", "'(sd-pam)'"),
        (b"?", "'?'"),
        (b"", "''"),
        (b"it's", "$'it\\'s'"),
        (b"\x1b[2J", "$'\\x1b[2J'"),
        (b"a\xff", "$'a\\xff'"),
        ("\u202ea".encode(), "$'\\xe2\\x80\\xaea'"),
        (b"a > b(1)", "'a > b(1)'"),
    ],
)
def test_what_could_forge_is_in_quotes(name: bytes, shown: str) -> None:
    assert quote_name(name) == shown


@pytest.mark.parametrize("text", ["'a", "$'a", "$'\\x4'", "$'\\x41'", "'plain'", "a\nb", "''x"])
def test_what_no_quoting_gives_out_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        unquote(text)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_reads_a_command_line_as_the_same_arguments() -> None:
    printed = "printf '%s\\0' "
    given_arguments = tuple(name for name in NASTY if b"\0" not in name)
    for chosen in [given_arguments, *((name,) for name in given_arguments)]:
        done = subprocess.run(
            ["bash", "--norc", "-c", printed + command_line(chosen)], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
        )
        assert done.stdout == b"".join(name + b"\0" for name in chosen)
