"""``tasktrail decode``: recordings and batches in JSON."""

import sys

import click

from queries import recordings
from schemas.errors import DecodeError
from tasktrail.options import closing, write_line

EXITS = {0: "done", 2: "the file cannot be opened", 3: "something in it could not be read"}


@click.command(
    epilog=closing(
        "tasktrail record dump build.tt --seconds 60; tasktrail decode build.tt",
        "tasktrail decode build.tt | jq -r 'select(.record == \"exec\") | .exe'",
        "tasktrail decode build.tt --headers",
        exits=EXITS,
    )
)
@click.argument("file")
@click.option("--headers", is_flag=True, help="Only the batches' headers.")
def decode(file: str, headers: bool) -> None:
    """Write a recording or a batch as JSON lines: one per batch header, one per record. - reads stdin.

    Values are those of the wire format, times CLOCK_BOOTTIME nanoseconds. Text that is not UTF-8 follows exactly in a field named ..._hex.
    A record that cannot be read becomes a line of its own; a file that ends within a batch ends the command with exit code 3 after all that
    is good was written.
    """
    with recordings.open_recording(file) if file != "-" else sys.stdin.buffer as source:
        bad = 0
        for batch in recordings.batches(source, file):
            write_line(recordings.batch_object(batch))
            if headers:
                continue
            for record in recordings.record_objects(batch):
                write_line(record)
                bad += record["record"] == "undecodable"
    if bad:
        raise DecodeError(f"{file}: {bad} {'record' if bad == 1 else 'records'} could not be read", "see the lines with record undecodable")
