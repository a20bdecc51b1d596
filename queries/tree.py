"""Everything that a process ever started, as a tree: children stand below their creator, orphans too, for creators never change."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from queries import find as finding
from queries.rows import NEWEST, Brief, Source, fetch
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


OF_PROCESS = f"""
WHERE host_id = {{host_id:UUID}} AND boot_id = {{boot_id:UUID}} AND start_boottime = {{start_boottime:UInt64}} AND tgid = {{tgid:UInt32}}
{NEWEST}"""
"""Newest rows of all images of one process."""
_IDS_AT_ONCE = 2000


def fetch_descendants(source: Source, image: ImageRow, dead: bool = True, since_ns: int | None = None) -> list[Brief]:
    """Images of the image's process and of all that descend from it, as stored.

    Without ``dead`` only of processes that live, with ``since_ns`` only of those created at or after it, and of the processes between
    them and the root: what nobody asked for is not read.
    """
    own = {"host_id": image.host_id, "boot_id": image.boot_id, "start_boottime": image.start_boottime, "tgid": image.tgid}
    rows = fetch(source, Brief, OF_PROCESS, own)
    below = finding.under(image)
    if dead and since_ns is None:
        where, params = finding.joined([below])
        return rows + fetch(source, Brief, f"WHERE {where} {NEWEST}", params)
    wanted = [below, *finding.created(since_ns), *([] if dead else [finding.living()])]
    where, params = finding.joined(wanted)
    kept: set[UUID] = set()
    for task_id, ancestor_ids in source.query(f"SELECT task_id, ancestor_ids {finding.newest(where)}", params).rows:
        kept |= {task_id, *ancestor_ids[: ancestor_ids.index(image.task_id)]}
    ids = sorted(kept)
    for at in range(0, len(ids), _IDS_AT_ONCE):
        where, params = finding.joined(
            [below, finding.Condition("task_id IN ({value#:Array(UUID)})", {"value#": ids[at : at + _IDS_AT_ONCE]})]
        )
        rows += fetch(source, Brief, f"WHERE {where} {NEWEST}", params)
    return rows


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
