"""The README's own commands, in a fresh clone of what is committed: what it promises to a stranger, done as a stranger does it."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.contract.conftest import await_end
from tests.e2e.running import ROOT, Place, open_directory, wait_until

SETUP_S = 600
README = (ROOT / "README.md").read_text()
QUESTIONS = sorted({match for row in re.findall(r"^\|.*\|$", README, re.M) for match in re.findall(r"`(tasktrail [^`]+)`", row)})
"""The commands of its table of questions."""
MAKES = re.findall(r"^    make (\w+)", README, re.M) + re.findall(r"`make (\w+)`", README)
"""What it says to make."""
ENDLESS = ("tasktrail watch",)


class Clone(NamedTuple):
    """A clone in which `make run` goes on.

    place   its settings
    root    its directory
    make    the make that runs
    living  a process below ``shell`` to ask about
    said    what `make run` said
    """

    place: Place
    root: Path
    make: subprocess.Popen[bytes]
    shell: int
    living: int
    said: Path

    def command(self, line: str) -> subprocess.CompletedProcess[str]:
        """A line of the README in a shell, with the clone's programs on its PATH."""
        env = self.place.env | {"PATH": f"{self.root}/.venv/bin:{os.environ['PATH']}"}
        return subprocess.run(["/bin/bash", "-c", line], env=env, cwd=self.root, capture_output=True, text=True, timeout=120, check=False)


def fitted(question: str, clone: Clone) -> str:
    """The question with the README's examples put into this host's terms."""
    now = datetime.now(UTC).strftime("%H:%M:%S")
    terms = {"4711": str(clone.living), "812": str(clone.shell), "10:32": now, "*/curl": "*/sleep", "sshd": str(clone.shell)}
    return re.sub("|".join(re.escape(term) for term in terms), lambda found: terms[found[0]], question)


@pytest.fixture(scope="module")
def clone() -> Iterator[Clone]:
    """`make run` in the clone, as the README begins. The packages come from where pip finds them, its cache first."""
    with open_directory() as directory, contextlib.ExitStack() as stack:
        root = directory / "tasktrail"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
        place = Place(directory)
        stack.callback(place.clear)
        place.env = {**os.environ, **{name: value for name, value in place.env.items() if name.startswith("TASKTRAIL_")}, "TZ": "UTC"}
        said = directory / "said"
        with said.open("wb") as output:
            make = subprocess.Popen(["make", "run"], cwd=root, env=place.env, stdout=output, stderr=output, start_new_session=True)
        stack.callback(end, make, place)

        def records() -> bool:
            assert make.poll() is None, said.read_text()
            return bool(place.status())

        wait_until(records, "recording", SETUP_S)
        shell = subprocess.Popen(["/bin/sh", "-c", "sleep 300; :"])
        stack.callback(shell.wait)
        stack.callback(shell.kill)
        children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
        living = int(wait_until(children.read_text, "the shell's child"))
        stack.callback(os.kill, living, signal.SIGKILL)
        place.wait_stored(living)
        yield Clone(place, root, make, shell.pid, living, said)


def end(make: subprocess.Popen[bytes], place: Place) -> None:
    """Ends `make run` and all below it, whatever state they are in."""
    pid = place.status().get("pid")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(make.pid, signal.SIGKILL)
    make.wait()
    assert pid is None or await_end(pid), "run outlived make"


def test_the_readme_has_what_is_tested_here() -> None:
    assert {"run", "test", "demo", "help"} <= set(MAKES)
    assert len(QUESTIONS) >= 8


@pytest.mark.parametrize("question", [line for line in QUESTIONS if not line.startswith(ENDLESS)])
def test_a_question_of_the_readme_is_answered(clone: Clone, question: str) -> None:
    done = clone.command(fitted(question, clone))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "no answer"
    assert "Traceback" not in done.stderr


def test_the_first_answers_name_the_process(clone: Clone) -> None:
    assert (
        clone.command(f"tasktrail history {clone.living}").stdout.splitlines()[0].endswith(f" > sh({clone.shell}) > sleep({clone.living})")
    )
    found = clone.command(f"tasktrail find --exe '*/sleep' --under {clone.shell} --since 2h").stdout
    assert f'"tgid":{clone.living},' in found


def test_watch_goes_on_until_it_is_interrupted(clone: Clone) -> None:
    for question in (line for line in QUESTIONS if line.startswith(ENDLESS)):
        done = clone.command(f"timeout --signal INT 3 {fitted(question, clone)}")
        # timeout says 124 whatever the command's own code was.
        assert (done.returncode, done.stderr) == (124, "")


def test_make_help_lists_what_the_readme_names(clone: Clone) -> None:
    listed = re.findall(r"^  make (\w+)", clone.command("make help").stdout, re.M)
    assert set(MAKES) <= set(listed)


def test_make_demo_shows_it_without_root(clone: Clone) -> None:
    shown = clone.command("make demo")
    assert shown.returncode == 0, shown.stderr
    quoted = re.findall(r"^    (systemd\(1\) > .*|.*memfd:a.*)$", README, re.M)
    assert quoted and all(line.strip() in shown.stdout for line in quoted)


def test_ctrl_c_ends_make_run_and_the_recorder_goes_on(clone: Clone) -> None:
    os.killpg(clone.make.pid, signal.SIGINT)
    clone.make.wait(30)
    wait_until(lambda: "picks up where this one ended" in clone.said.read_text(), "the last words of run")
    assert "Traceback" not in clone.said.read_text()
    status = clone.command(f"tasktrail record status --pin-dir {clone.place.pin_dir} --run-dir {clone.place.run_dir}")
    assert status.returncode == 0 and "yes" in status.stdout
