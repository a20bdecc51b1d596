"""How complete a history is, in one sentence."""

from typing import Any

from queries.history import Chain, History, Origin
from queries.times import show_time


def _several(number: int, one: str, many: str) -> str:
    return f"1 {one}" if number == 1 else f"{number} {many}"


def state(image: Chain, history: History[Any] | None = None) -> str:
    """``complete``, or what is missing and why; the parts are joined by semicolons."""
    parts = []
    if image.chain_lost:
        when = f" between {show_time(image.lost_from)} and {show_time(image.lost_to)}" if image.lost_from or image.lost_to else ""
        parts.append(f"records were lost{when}")
    if image.chain_cut:
        parts.append("the kept chain lacks its oldest programs")
    if history is not None:
        unknown = sum(step.origin is Origin.UNKNOWN for step in history.steps)
        if unknown:
            parts.append(f"{_several(unknown, 'step is', 'steps are')} not known")
        if history.fallback:
            told = _several(history.fallback, "step is", "steps are")
            parts.append(f"{told} only known from the kept chain, processes that just forked are left out there")
        if not history.whole:
            parts.append("the root is not reached")
    if image.chain_before:
        parts.append("the first links are older than the recorder: they are the kernel's parents then")
    if is_complete(image, history):
        return "; ".join(["complete", *parts])
    return "not complete: " + ("; ".join(parts) or "its exec ids leave a hole")


def is_complete(image: Chain, history: History[Any] | None = None) -> bool:
    """No program is missing, and no process on the way."""
    if history is None:
        return bool(image.chain_complete)
    return bool(image.chain_complete) and history.whole and all(step.origin is Origin.ROW for step in history.steps)
