"""Which earlier frames a target frame reads from. One rule per published dialect (docs/protocols.md)."""

from collections.abc import Callable


def repeated(t: int, num_context: int) -> list[int]:
    """CRW, STFC3: frames t-m .. t-1, with frame 0 standing in for those before the video began."""
    return [max(0, s) for s in range(t - num_context, t)]


def available(t: int, num_context: int) -> list[int]:
    """VFS, StT: those of the frames t-m .. t-1 that exist."""
    return list(range(max(0, t - num_context), t))


def without_first(t: int, num_context: int) -> list[int]:
    """DINO: those of the frames t-m .. t-1 that exist, frame 0 left out (it is added by itself)."""
    return list(range(max(1, t - num_context), t))


RECENT: dict[str, Callable[[int, int], list[int]]] = {
    "repeated": repeated,
    "available": available,
    "without_first": without_first,
}


def context_frames(t: int, num_context: int, recent: str, add_first: bool) -> list[int]:
    """Frames that frame t reads from, oldest first, the added first frame in front.

    Args:
        t: target frame, >= 1, counted from the frame that carries the seed labels.
        num_context: m, how many recent frames.
        recent: a key of `RECENT`.
        add_first: put frame 0 in front, whether or not it is among the recent ones.

    Returns: frame numbers; frame 0 may occur several times and then counts as often.
    """
    return ([0] if add_first else []) + RECENT[recent](t, num_context)
