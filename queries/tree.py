"""Everything that a process ever started, as a tree: children stand below their creator, orphans too, for creators never change."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from queries.rows import NEWEST, Brief, Source, fetch
from schemas.rows import EndKind


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


DESCENDANTS = f"""
WHERE has(ancestor_ids, {{task_id:UUID}}) AND host = {{host:String}} AND start >= fromUnixTimestamp64Nano({{start:Int64}}) {NEWEST}"""
"""Newest rows of all images of all processes that descend from one."""

OF_PROCESS = f"WHERE task_id = {{task_id:UUID}} {NEWEST}"
"""Newest rows of all images of one process."""

_CLOCK_STEP_NS = 86_400_000_000_000
"""A clock set back can give a child an earlier wall time than its creator."""


def fetch_descendants(source: Source, task_id: UUID, host: bytes, start_ns: int) -> list[Brief]:
    """Images of the process and of all that descend from it, as stored."""
    params = {"task_id": task_id, "host": host, "start": max(0, start_ns - _CLOCK_STEP_NS)}
    return fetch(source, Brief, OF_PROCESS, params) + fetch(source, Brief, DESCENDANTS, params)


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
