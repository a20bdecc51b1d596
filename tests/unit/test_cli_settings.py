"""Settings come from four places, the later ones win, and each value says whence it came."""

from pathlib import Path

import pytest

from schemas.errors import BadInput
from tasktrail.settings import FILE, Settings, parse_size, read_settings


def test_defaults_are_in_force_when_nothing_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty.toml"
    empty.touch()
    in_force = read_settings({}, {}, str(empty))
    assert in_force.settings == Settings()
    assert set(in_force.origins.values()) == {"default"}


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "tasktrail.toml"
    file.write_text('store = "/file"\nretention_days = 7\nring_bytes = "32MiB"\n')
    environ = {"TASKTRAIL_STORE": "/environment", "TASKTRAIL_RETENTION_DAYS": "8", "HOME": "/root"}
    in_force = read_settings({"store": "/flag", "tcp_port": None}, environ, str(file))
    assert (in_force.settings.store, in_force.settings.retention_days, in_force.settings.ring_bytes) == ("/flag", 8, 32 << 20)
    assert in_force.origins["store"] == "--store"
    assert in_force.origins["retention_days"] == "$TASKTRAIL_RETENTION_DAYS"
    assert in_force.origins["ring_bytes"] == str(file)
    assert in_force.origins["tcp_port"] == "default"


def test_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("http_port = 8123\n")
    assert read_settings({}, {"TASKTRAIL_CONFIG": str(file)}).settings.http_port == 8123


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("stores = '/x'", "stores"),
        ("store = 5", "store"),
        ("retention_days = 'soon'", "retention_days"),
        ("retention_days = 0", "from 1 to"),
        ("retention_days = true", "retention_days"),
        ("ring_bytes = 100000", "power of two"),
        ("tcp_port = 70000", "tcp_port"),
        ("= nothing", "not TOML"),
        ("[store]\nx = 1", "store"),
    ],
)
def test_bad_values_are_one_sentence_with_the_cure(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(content)
    with pytest.raises(BadInput) as raised:
        read_settings({}, {}, str(file))
    assert says in str(raised.value) and str(file) in str(raised.value) and raised.value.cure


def test_a_named_file_must_be_there_and_the_usual_one_need_not(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not there"):
        read_settings({}, {}, str(tmp_path / "nothing.toml"))
    if not Path(FILE).exists():
        assert read_settings({}, {}).settings == Settings()


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("16MiB", 16 << 20), ("1G", 1 << 30), (" 64 KiB", 65536), ("5B", 5)])
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1.5M", "1XiB", "1BM"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)
