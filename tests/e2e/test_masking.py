"""A secret in arguments that a setting masks is written nowhere: not by run, not into its store, not into a recording."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import Place, open_directory, wait_until

SECRET = "correct-horse-battery-4711"
PROGRAM = "import sys; sys.stdin.read()"


def holders(directory: Path) -> list[str]:
    """Files that hold the secret as it is."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


def tell(program: "subprocess.Popen[bytes]") -> None:
    """Let the program end."""
    program.communicate()


@pytest.mark.parametrize("mask", ["secrets", "", "--token=([^ ]*)\nbattery"])
def test_a_masked_secret_is_nowhere(mask: str) -> None:
    with open_directory() as directory:
        place = Place(directory, **({"TASKTRAIL_ARGV_MASK": mask} if mask else {}))
        try:
            # One is there before the recorder and is seen by a snapshot, the other is recorded.
            command = [sys.executable, "-c", PROGRAM, f"--token={SECRET}"]
            older = subprocess.Popen(command, stdin=subprocess.PIPE)
            place.start()
            younger = subprocess.Popen(command, stdin=subprocess.PIPE)
            for program in (older, younger):
                place.wait_stored(program.pid, where="kind IN ('exec', 'seen')")
            told = {
                tgid: (argv, flags)
                for tgid, argv, flags in place.query(
                    f"SELECT tgid, argv, flags FROM current_images WHERE tgid IN ({older.pid}, {younger.pid}) AND kind IN ('exec', 'seen')"
                )
            }
            for program in (older, younger):
                tell(program)
            place.caught_up()
            for program in (older, younger):
                argv, flags = told[program.pid]
                assert (b"argv_masked" in flags) == bool(mask)
                assert (SECRET.encode() in argv[-1]) == (not mask)
                assert len(argv) == 4 and len(argv[-1]) == len(f"--token={SECRET}")
            if mask:
                held = "SELECT count() FROM images WHERE arrayExists(one -> position(one, {secret:String}) > 0, argv)"
                assert place.query(held, secret=SECRET) == [(0,)]
                assert not holders(directory)
                assert wait_until(lambda: place.status()["masked"], "a count of what was masked")
            else:
                assert SECRET in place.ask("history", str(younger.pid), "--long", "--json"), "the search for it finds it where it is"
        finally:
            place.clear()


def test_a_recording_has_no_masked_secret() -> None:
    with open_directory() as directory:
        place = Place(directory, TASKTRAIL_ARGV_MASK="secrets", TASKTRAIL_RING_BYTES=str(1 << 20))
        try:
            assert place.record("load").returncode == 0
            done = subprocess.run(["/bin/true", f"--password={SECRET}"], check=True)
            assert done.returncode == 0
            assert place.record("dump", str(directory / "recording.tt"), "--seconds", "0.5").returncode == 0
            decoded = place.ask("decode", str(directory / "recording.tt"))
            assert f"--password={'*' * len(SECRET)}" in decoded
            assert not holders(directory)
        finally:
            place.clear()
