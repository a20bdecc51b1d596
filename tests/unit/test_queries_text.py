"""JSON, TSV, the patch's string, times and patterns: exact, and exact again when read back."""

import csv
import fnmatch
import io
import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queries import jsonlines, patch, tables, times
from queries.globs import as_hex_regex, fits
from queries.patch import Element
from queries.times import parse_moment
from schemas.errors import BadInput

data = st.one_of(st.binary(max_size=20), st.text(max_size=10).map(lambda text: text.encode("utf-8", "surrogatepass")))


@given(data, st.lists(data, max_size=5))
def test_json_gives_bytes_back_exactly(comm: bytes, argv: list[bytes]) -> None:
    text = jsonlines.line(jsonlines.as_object([("comm", comm), ("argv", tuple(argv)), ("uid", 0)]))
    assert text.isascii() and text.isprintable()
    parsed = json.loads(text)
    assert jsonlines.exact(parsed, "comm") == comm
    assert jsonlines.exact(parsed, "argv") == argv


def test_json_has_hex_only_where_text_is_not_exact() -> None:
    parsed = jsonlines.as_object([("a", b"caf\xc3\xa9"), ("b", b"x\xff"), ("c", [b"ls", b"\xfe"]), ("d", {b"k": b"\xff"})])
    assert parsed == {
        "a": "café",
        "b": "x\ufffd",
        "b_hex": "78ff",
        "c": ["ls", "\ufffd"],
        "c_hex": ["6c73", "fe"],
        "d": {"k": "\ufffd"},
        "d_hex": {"6b": "ff"},
    }


def test_json_twin_never_hides_a_column() -> None:
    parsed = jsonlines.as_object([("a", b"\xff"), ("a_hex", b"mine")])
    assert parsed == {"a": "\ufffd", "a_hex_hex": "ff", "a_hex": "mine"}


def test_json_is_ascii_so_a_terminal_shows_no_control_byte() -> None:
    assert jsonlines.line(jsonlines.as_object([("a", "\x1b\x7f\u009b\u202e".encode())])) == r'{"a":"\u001b\u007f\u009b\u202e"}'


def test_json_has_no_nan() -> None:
    assert json.loads(jsonlines.line(jsonlines.as_object([("a", float("nan")), ("b", float("-inf"))]))) == {"a": "nan", "b": "-inf"}


# -- the patch's string --


@given(st.binary(max_size=16))
def test_patch_names_have_only_the_patch_s_letters_and_go_back(name: bytes) -> None:
    escaped = patch.escape(name)
    assert re.fullmatch(r"(?:[A-Za-z0-9._/-]|\\[0-7]{3})*", escaped)
    assert re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), escaped.encode()) == name


def test_patch_string_is_that_of_the_2023_patch() -> None:
    def at(text: str) -> int:
        return int(datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()) * 10**9

    elements = [
        Element(b"swapper/0", 1, at("20230811194329")),
        Element(b"init", 1, at("20230811194343")),
        Element(b"systemd", 1, at("20230811194439")),
        Element(b"tail -f", 3660, at("20230811104756")),
    ]
    assert patch.history_string(elements, True) == (
        "name=swapper/0;pid=1;start=20230811194329=>name=init;pid=1;start=20230811194343"
        "=>name=systemd;pid=1;start=20230811194439=>name=tail\\040-f;pid=3660;start=20230811104756"
    )
    assert patch.history_string(elements[2:3], False) == "=>name=systemd;pid=1;start=20230811194439"


def test_patch_unknown_cannot_be_forged() -> None:
    unknown = patch.history_string([Element(None, 0, 0)], False)
    forged = patch.history_string([Element(b"?", 5, 10**18)], False)
    assert unknown == "=>name=?;pid=?;start=?"
    assert forged.startswith("=>name=\\077;pid=5;start=2001")


# -- tables --

columns = [("a", "String"), ("b", "Array(String)")]


@given(st.lists(st.tuples(data, st.lists(data, max_size=3)), max_size=4))
def test_tsv_has_one_line_per_row_and_strings_go_back(rows: list[tuple[bytes, list[bytes]]]) -> None:
    lines = list(tables.tsv_lines(columns, iter([list(row) for row in rows])))
    assert len(lines) == len(rows) + 1 and lines[0] == "a\tb"
    for line, (first, _) in zip(lines[1:], rows, strict=True):
        assert line.count("\t") == 1 and not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", line)
        assert unescape(line.split("\t")[0]) == first


def unescape(field: str) -> bytes:
    """As ClickHouse reads TSV."""
    plain = {"n": b"\n", "t": b"\t", "r": b"\r", "\\": b"\\"}
    result = b""
    for found in re.finditer(r"\\x([0-9A-F]{2})|\\(.)|([^\\]+)", field):
        result += bytes.fromhex(found[1]) if found[1] else plain[found[2]] if found[2] else found[3].encode()
    return result


@given(st.lists(st.text(max_size=8), min_size=2, max_size=2))
def test_csv_is_read_back_by_any_reader(row: list[str]) -> None:
    fields = [text.encode("utf-8", "replace") for text in row]
    lines = "\r\n".join(tables.csv_lines([("a", "String"), ("b", "String")], iter([list(fields)])))
    assert list(csv.reader(io.StringIO(lines, newline="")))[1] == [field.decode() for field in fields]


def test_columns_of_one_name_both_arrive() -> None:
    lines = tables.json_lines([("x", "UInt8"), ("x", "UInt8"), ("x_2", "UInt8")], iter([[1, 2, 3]]))
    assert [json.loads(line) for line in lines] == [{"x": 1, "x_2": 2, "x_2_2": 3}]


def test_cells_are_quoted_where_they_could_do_harm() -> None:
    assert tables.cell(b"a (b) > c") == "a (b) > c"
    assert tables.cell(b"\x1b[2J") == "$'\\x1b[2J'"
    assert tables.cell([b"a, b", b"c"]) == "['a, b', c]"
    assert tables.cell({b"\x1b": b"x"}) == "$'{\\'\\x1b\\':\\'x\\'}'"
    assert (tables.cell(None), tables.cell(True), tables.cell(1.5), tables.cell(b"")) == ("", "true", "1.5", "")


# -- times --

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=timezone(timedelta(hours=2), "here"))


def ns(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=NOW.tzinfo).timestamp()) * 10**9  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("text", "begin", "length"),
    [
        ("10:32", ns(2026, 11, 25, 10, 32), 60 * 10**9),
        ("10:32:05", ns(2026, 11, 25, 10, 32, 5), 10**9),
        ("10:32:05.25", ns(2026, 11, 25, 10, 32, 5) + 250_000_000, 10**7),
        ("23:59", ns(2026, 11, 24, 23, 59), 60 * 10**9),
        ("2h", ns(2026, 11, 25, 10), 1),
        ("1h30m ago", ns(2026, 11, 25, 10, 30), 1),
        ("1d", ns(2026, 11, 24, 12), 1),
        ("90s", ns(2026, 11, 25, 11, 58, 30), 1),
        ("2026-11-01", ns(2026, 11, 1), 86_400 * 10**9),
        ("2026-11-01T10:32", ns(2026, 11, 1, 10, 32), 60 * 10**9),
        ("2026-11-01 10:32:05", ns(2026, 11, 1, 10, 32, 5), 10**9),
        ("2026-11-01T08:32:05Z", ns(2026, 11, 1, 10, 32, 5), 10**9),
        ("2026-11-01T08:32:05+00:00", ns(2026, 11, 1, 10, 32, 5), 10**9),
        ("@1700000000", 1_700_000_000 * 10**9, 10**9),
    ],
)
def test_moments_are_read_as_people_write_them(text: str, begin: int, length: int) -> None:
    moment = parse_moment(text, NOW)
    assert (moment.begin_ns, moment.end_ns - moment.begin_ns) == (begin, length)


@pytest.mark.parametrize("text", ["", "soon", "25:00", "10:61", "2026-13-01", "h", "@x", "99999999w", "ago"])
def test_what_is_no_moment_is_refused_with_the_cure(text: str) -> None:
    with pytest.raises(BadInput, match=r"not understood; write it like"):
        parse_moment(text, NOW)


@given(st.integers(0, 4 * 10**18))
def test_iso_times_keep_every_digit(time_ns: int) -> None:
    shown = times.iso_time(time_ns)
    seconds = int(datetime.strptime(shown[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())
    assert seconds * 10**9 + int(shown[20:29]) == time_ns and shown.endswith("Z")


@pytest.mark.parametrize(
    ("duration", "shown"),
    [
        (0, "0 us"),
        (850_000, "850 us"),
        (12_300_000, "12 ms"),
        (3_240_000_000, "3.2 s"),
        (245 * 10**9, "4 min 5 s"),
        (12_000 * 10**9, "3 h 20 min"),
    ],
)
def test_durations_in_two_figures(duration: int, shown: str) -> None:
    assert times.show_duration(duration) == shown


# -- patterns --


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("*/c?rl", [b"/usr/bin/curl", b"/c\xffrl"], [b"curl", b"/usr/bin/curl2", b"/curl\n"]),
        ("s?", [b"sh"], [b"ssh", b"sh\n", b""]),
        ("?", [b"x", b"\xff", b"\n"], [b"", b"xx"]),
        ("[a-c]x", [b"ax", b"cx"], [b"dx", b"-x"]),
        ("[!a]x", [b"bx", b"\xffx"], [b"ax"]),
        ("a[b", [b"a[b"], [b"ab"]),
        ("[]]", [b"]"], [b"["]),
        ("[^a]", [b"^", b"a"], [b"b"]),
        ("[a-]", [b"a", b"-"], [b"b"]),
        ("[z-a]", [], [b"a", b"z", b"-", b""]),
        ("?*\udcff", [b"x\xff", b"xy\xff"], [b"\xff", b"x\xfe"]),
    ],
)
def test_patterns_fit_as_in_a_shell(pattern: str, good: list[bytes], bad: list[bytes]) -> None:
    regex = re.compile(as_hex_regex(pattern).replace("$", "\\Z"))
    assert all(regex.match(one.hex().upper()) for one in good) and not any(regex.match(one.hex().upper()) for one in bad)


@given(st.text(st.sampled_from("ab*?[]!-/\udcff"), max_size=8), st.binary(max_size=8))
def test_a_pattern_fits_what_python_says(pattern: str, data: bytes) -> None:
    # Python's set "[]" and "[!]" need a member and treat ranges alike; its patterns work on text, here one char per byte.
    ours = re.compile(as_hex_regex(pattern).replace("$", "\\Z")).match(data.hex().upper())
    theirs = fnmatch.fnmatchcase(data.decode("latin-1"), pattern.encode("utf-8", "surrogateescape").decode("latin-1"))
    assert bool(ours) == theirs


@pytest.mark.parametrize(
    ("pattern", "sql"),
    [
        ("sh", "x = {value#:String}"),
        ("*/curl", "(endsWith(x, {tail#:String}))"),
        ("/tmp/*", "(startsWith(x, {value#:String}))"),
        ("a*b", "(startsWith(x, {value#:String}) AND endsWith(x, {tail#:String}) AND length(x) >= 2)"),
        ("*b*", "position(x, {value#:String}) > 0"),
        ("*", "1"),
        ("a?", "match(hex(x), {value#:String})"),
        ("*a*b*", "match(hex(x), {value#:String})"),
    ],
)
def test_common_patterns_are_compared_without_a_regular_expression(pattern: str, sql: str) -> None:
    assert fits("x", pattern).sql == sql
