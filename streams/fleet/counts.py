"""What a worker counts."""

from dataclasses import dataclass

from schemas.rows import ImageKind, ImageRow, LossCause, LossRow
from streams.fleet.partition import Taken


@dataclass(slots=True)
class Counts:
    """What has happened since the start.

    messages     joined
    rows         that followed from them
    unknown      of those, images of which only their being is known
    clashes      machines that were found to have another one's host_id
    repeated     skipped, since a saved state covered them
    dead         put among the dead letters
    refused      of those, not taken though they may be readable: signature, version
    again        delivered a second time
    jumps        delivered out of order, and asked for again
    rebuilt      partitions that were read from their begin, since states were missing
    saves        savings of states
    """

    messages: int = 0
    rows: int = 0
    unknown: int = 0
    clashes: int = 0
    repeated: int = 0
    dead: int = 0
    refused: int = 0
    again: int = 0
    jumps: int = 0
    rebuilt: int = 0
    saves: int = 0

    def joined(self, taken: Taken) -> None:
        """A message was joined."""
        self.messages += 1
        self.rows += len(taken.rows)
        for row in taken.rows:
            if isinstance(row, ImageRow):
                self.unknown += row.kind == ImageKind.UNKNOWN
            elif isinstance(row, LossRow) and row.cause == LossCause.IDENTITY_CLASH and taken.batch is not None:
                # Each clash is told of both machines; counted is the one that gets another host_id.
                self.clashes += row.host_id != taken.batch.host_id
