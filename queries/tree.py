"""Everything that a process ever started, as a tree: children stand below their creator, orphans too, for creators never change."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from queries import find as finding
from queries.rows import Brief, Source, columns, make
from schemas.errors import BadInput
from schemas.rows import EndKind, ImageRow


@dataclass(slots=True)
class Node:
    """One process.

    images    what it ran, oldest first; empty for one whose row is not there
    children  processes that it created, oldest first
    """

    task_id: UUID
    tgid: int
    images: list[Brief] = field(default_factory=list)
    children: "list[Node]" = field(default_factory=list)

    @property
    def living(self) -> bool:
        """Whether its last image had not ended."""
        return bool(self.images) and self.images[-1].end_kind == EndKind.LIVING


IMAGES_MAX = 100_000
"""Images that one tree holds at most: some 400 MB with what a terminal needs for them, and nobody reads more of them as a tree."""


def fetch_descendants(
    source: Source, image: ImageRow, dead: bool = True, since_ns: int | None = None, at_most: int = IMAGES_MAX
) -> list[Brief]:
    """Images of the image's process and of all that descend from it, as stored.

    Without ``dead`` only of processes that live, with ``since_ns`` only of those created at or after it, and of the processes between
    them and the root: what nobody asked for is not read. Raises BadInput when they are more than ``at_most``.
    """
    below = finding.under(image)
    where, params = finding.joined([below])
    if not dead or since_ns is not None:
        chosen, params = finding.joined([below, *finding.created(since_ns), *([] if dead else [finding.living()])])
        # Their ancestors beyond the root are not below it, and stay out by the other condition.
        where = f"{where} AND task_id IN (SELECT arrayJoin(arrayPushBack(ancestor_ids, task_id)) {finding.newest(chosen)})"
    # The place says once more that all of them are of one boot of one host: the table is in this order.
    place = "host_id = {host0:UUID} AND boot_id = {boot0:UUID} AND start_boottime >= {start0:UInt64}"
    found = f"SELECT {finding.KEY} FROM images WHERE {place} AND (task_id = {{root:UUID}} OR ({where}))"
    # Of what was found in any row the newest is taken, in the table's order, which takes neither FINAL nor sorting.
    order = f"ORDER BY {finding.KEY}, version DESC LIMIT 1 BY {finding.KEY}"
    sql = f"SELECT {columns(Brief)} FROM images WHERE {place} AND ({finding.KEY}) IN ({found}) {order}"
    stream = source.stream(sql, {**params, "root": image.task_id}, finding.STREAM_SETTINGS)
    try:
        return _held(make(Brief, stream), image.task_id, at_most)
    finally:
        stream.close()


def _held(rows: Iterable[Brief], root_id: UUID, at_most: int) -> list[Brief]:
    """The rows that are of this tree, no more than may be. A newest row can name another creator than an older one did."""
    held: list[Brief] = []
    shared: dict[tuple[UUID, ...], tuple[UUID, ...]] = {}
    for row in rows:
        if row.task_id != root_id and root_id not in row.ancestor_ids:
            continue
        if len(held) == at_most:
            raise BadInput(
                f"more than {at_most:,} images descend from it, which is too much for a tree",
                "leave out --dead, ask for a part by --since, or list them by `tasktrail find --under PROCESS`",
            )
        # Siblings have the same ancestors, up to 64 each.
        held.append(row._replace(ancestor_ids=shared.setdefault(row.ancestor_ids, row.ancestor_ids)))
    return held


def build(root_id: UUID, images: Sequence[Brief]) -> Node:
    """The tree below ``root_id``. A process whose creator's row is missing hangs on the nearest ancestor that has one."""
    nodes: dict[UUID, Node] = {}
    for image in sorted(images, key=lambda image: (image.start, image.tgid, image.exec_id)):
        node = nodes.setdefault(image.task_id, Node(image.task_id, image.tgid))
        node.images.append(image)
    root = nodes.setdefault(root_id, Node(root_id, 0))
    for node in list(nodes.values()):
        if node is not root:
            _place(node, nodes, root)
    return root


def _place(node: Node, nodes: dict[UUID, Node], root: Node) -> None:
    """Hang the node below its creator, which is made if only its name is known."""
    image = node.images[-1]
    creator = nodes.get(image.creator_id)
    if creator is None:
        creator = next((nodes[ancestor] for ancestor in image.ancestor_ids if ancestor in nodes), root)
        made = nodes[image.creator_id] = Node(image.creator_id, image.creator_tgid)
        creator.children.append(made)
        creator = made
    creator.children.append(node)


def living_only(root: Node) -> Node:
    """The tree without the dead, but for those that lead to living ones. ``root`` itself always stays."""
    order = list(walk(root))
    keep: set[int] = {id(root)}
    for node, _ in reversed(order):
        node.children = [child for child in node.children if id(child) in keep]
        if node.living or node.children:
            keep.add(id(node))
    return root


def walk(root: Node) -> "list[tuple[Node, int]]":
    """Every node with its depth, creators before their children, oldest first. No recursion: trees can be thousands deep."""
    result: list[tuple[Node, int]] = []
    stack = [(root, 0)]
    while stack:
        node, depth = stack.pop()
        result.append((node, depth))
        stack.extend((child, depth + 1) for child in reversed(node.children))
    return result
