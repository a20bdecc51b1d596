"""The elements of the patch's string out of a history."""

from queries.history import History, is_root
from queries.patch import SWAPPER, Element
from schemas.rows import ImageKind, ImageRow

FIRST_PROCESS = 1


def elements_of(history: History[ImageRow]) -> tuple[list[Element], bool]:
    """Elements, root first, and whether they reach the root.

    Before the exec'd images stands what the root was before its first exec: the kernel's swapper/0 in process 1, else (kthreadd) its own
    name. Where the root's row is not there its start is not known, so it does not count as reached.
    """
    image = history.image
    chain = zip(image.chain_kind, image.chain_tgid, image.chain_exec_id, image.chain_start, image.chain_comm, strict=True)
    elements = [Element(None if kind == ImageKind.UNKNOWN and not comm else comm, tgid, start) for kind, tgid, _, start, comm in chain]
    root = next((row for row in history.images if is_root(row)), None)
    whole = root is not None and history.whole and not image.chain_cut
    if root is not None and whole:
        name = SWAPPER if root.tgid == FIRST_PROCESS else root.comm
        elements.insert(0, Element(name, root.tgid, root.start))
    return elements, whole
