"""``tasktrail record``: put the recorder into the kernel, look at it, take it out, or copy what it records into a file."""

import signal
import threading
from pathlib import Path
from types import FrameType

import click

from producers import host, loader, snapshot
from producers.bpf import pins, source
from producers.masking import Masking
from producers.prerequisites import READING, check_rights
from producers.recorder import Recorder
from producers.recording import write_recording
from schemas import limits
from tasktrail import rights
from tasktrail.settings import Settings, parse_size, read_settings


class Size(click.ParamType):
    """A number of bytes, such as 4096 or 16MiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes that the text means."""
        try:
            return value if isinstance(value, int) else parse_size(str(value))
        except ValueError:
            self.fail(f"{value!r} is no size; write it like 4096 or 16MiB", param, ctx)


def _settings(**flags: object) -> Settings:
    return read_settings(flags).settings


def _spool(settings: Settings) -> Path:
    return Path(settings.run_dir) / snapshot.SPOOL.name


_pin_dir = click.option("--pin-dir", metavar="DIR", help=f"Directory below a bpf file system.  [default: {pins.DIRECTORY}]")
_run_dir = click.option("--run-dir", metavar="DIR", help="Directory for locks and waiting snapshots.  [default: /run/tasktrail]")
_state_dir = click.option("--state-dir", metavar="DIR", help=f"Directory that keeps this host's id.  [default: {host.STATE_DIRECTORY}]")


@click.group()
def record() -> None:
    """The recorder: programs in the kernel that go on without any process of ours.

    \b
    Examples:
      tasktrail record load
      tasktrail record load --ring-size 64MiB --argv-bytes 1024
      tasktrail record status
      tasktrail record dump build.tt --seconds 60
      tasktrail record unload
    """


@record.command()
@click.option(
    "--ring-size", "ring_bytes", type=Size(), help=f"Size of the ring, a power of two.  [default: {limits.RING_BYTES_DEFAULT >> 20}MiB]"
)
@click.option("--argv-bytes", type=Size(), help=f"Argument bytes kept of one exec; 0 keeps none.  [default: {limits.ARGV_BYTES_MAX}]")
@click.option("--processes", type=int, default=source.Settings().processes, show_default=True, help="Living processes there is room for.")
@_pin_dir
@_run_dir
@_state_dir
def load(
    ring_bytes: int | None, argv_bytes: int | None, processes: int, pin_dir: str | None, run_dir: str | None, state_dir: str | None
) -> None:
    """Make the kernel record from now on; newer programs take over from older ones without a gap.

    \b
    Examples:
      tasktrail record load
      tasktrail record load --ring-size 64MiB
    """
    chosen = _settings(ring_bytes=ring_bytes, argv_bytes=argv_bytes, pin_dir=pin_dir, run_dir=run_dir, state_dir=state_dir)
    programs = source.Settings(chosen.ring_bytes, chosen.argv_bytes, processes)
    done = loader.load(Path(chosen.pin_dir), loader.Settings(programs, _spool(chosen), Path(chosen.state_dir), Masking(chosen.argv_mask)))
    if done.cleared:
        click.echo(f"cleared away: {done.cleared} pins of a load that had not been finished", err=True)
    if done.full:
        click.echo("the ring is full: no snapshot was taken; start a reader", err=True)
    click.echo(f"{chosen.pin_dir}: {done.outcome.value} (ring {done.ring_id}, epoch {done.epoch:08x})", err=True)


@record.command()
@_pin_dir
@_run_dir
def status(pin_dir: str | None, run_dir: str | None) -> None:
    """What the recorder holds, what it has left out, and whether its programs answer.

    Exit code 4 if nothing is loaded or the programs do not answer.
    """
    chosen = _settings(pin_dir=pin_dir, run_dir=run_dir)
    with Recorder(Path(chosen.pin_dir), _spool(chosen)) as recorder:
        ring, counters = recorder.ring, recorder.counters()
        renames, others = recorder.probe(), recorder.exec_probe()
        lines = {
            "pins": chosen.pin_dir,
            "ring": str(recorder.ring_id),
            "epoch": f"{recorder.epoch:08x}",
            "ring_bytes": str(ring.size_bytes),
            "unread_bytes": str(ring.producer() - ring.consumer()),
            "produced_bytes": str(ring.producer()),
            "waiting_snapshots": str(len(recorder.pending_snapshots())),
            **{name: str(value) for name, value in counters._asdict().items()},
            **{f"{name}_ns": f"{cost.run_time_ns / cost.run_count:.0f}" for name, cost in recorder.costs().items() if cost.run_count},
            "missing_pins": " ".join(recorder.missing_pins()) or "none",
            "recording": "yes" if renames and others else "no",
        }
    for name, value in lines.items():
        click.echo(f"{name:18} {value}")
    if not (renames and others):
        raise click.exceptions.Exit(4)


@record.command()
@_pin_dir
@_run_dir
def unload(pin_dir: str | None, run_dir: str | None) -> None:
    """Take the recorder out of the kernel, and with it whatever no reader has read."""
    chosen = _settings(pin_dir=pin_dir, run_dir=run_dir)
    done = loader.unload(Path(chosen.pin_dir), _spool(chosen))
    click.echo(f"{chosen.pin_dir}: recording has ended; {done.pins} pins removed, {done.unread_bytes} bytes were unread", err=True)


@record.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop after so long.")
@click.option("--until-interrupted", is_flag=True, help="Stop at SIGINT or SIGTERM only.")
@_pin_dir
@_run_dir
@_state_dir
def dump(
    file: Path, seconds: float | None, until_interrupted: bool, pin_dir: str | None, run_dir: str | None, state_dir: str | None
) -> None:
    """Copy what is recorded into FILE, beginning with what lies in the ring and a snapshot of what lives.

    It is a reader: what it has copied is gone from the ring, and it cannot run beside `tasktrail run`.

    \b
    Examples:
      tasktrail record dump build.tt --seconds 60
      tasktrail record dump session.tt --until-interrupted
    """
    if (seconds is None) == (not until_interrupted):
        raise click.UsageError("give either --seconds or --until-interrupted")
    chosen = _settings(pin_dir=pin_dir, run_dir=run_dir, state_dir=state_dir)
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    deadline = None if seconds is None else host.now().boottime_ns + int(seconds * 1e9)

    def wait(longest: float) -> bool:
        if deadline is not None:
            left = (deadline - host.now().boottime_ns) / 1e9
            return left <= 0 or stopped.wait(min(longest, left)) or left <= longest
        return stopped.wait(longest)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    masking = Masking(chosen.argv_mask)
    check_rights(READING)
    rights.give_up(READING, server=False)
    with Recorder(Path(chosen.pin_dir), _spool(chosen), Path(chosen.state_dir), masking) as recorder, recorder.lock():
        amount = write_recording(recorder, file, wait)
    click.echo(f"{file}: {amount.batches} batches with {amount.ring_bytes} bytes of the ring, {amount.snapshots} snapshots", err=True)
