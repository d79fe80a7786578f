"""Readout: what the nodes of a target frame read from the nodes of earlier, labelled frames.

`labels[target] = P[target -> context] @ labels[context]`, with P kept to the k best context nodes inside a window.
The full node x node matrix never exists: target nodes are taken tile by tile, and a tile meets only the part of each
context frame that its window reaches. The result equals the dense computation (ties aside).

How the k best are found without sorting everything: the candidates of a target node are cut into groups, the maximum of
each group is taken, and the k best groups are opened. A value among the k best of all lies in a group whose maximum is
among the k best of all maxima, so nothing is missed.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from retrace.walk.neighborhood import reach, window

CPU_TILE = (8, 16)  # 128 queries against the reached part of 20 frames: scores fit the last-level cache
CUDA_TILE = (32, 32)


@dataclass(frozen=True)
class Rules:
    """The dialect of a readout.

    Attributes:
        temperature: > 0, divides the affinities.
        top_k: number of context nodes kept; None keeps all that the window allows.
        shape: of the window, "disc" (distance < radius) or "square" (|dy|, |dx| <= radius).
        radius: of the window in cells; None is no window.
        joint: True takes the k best over all context frames together, False takes k of every frame.
        softmax: "kept" normalises over the nodes that are kept; "frame" over all allowed nodes of each frame, sums what
            is kept and divides by the number of frames (TimeCycle).
        keep_ties: keep every node that ties with the k-th (DINO).
        subcell: labels are read where the affinity peaks between nodes, see `own_shifts`. Not in any of the papers.
        finer: 1 searches all nodes. n has nodes n times as close as the encoder's own: every n-th is searched first,
            where `radius` counts these, and then the nodes round the k best found, see `_refined`. Not in any of the
            papers.
    """

    temperature: float = 0.07
    top_k: int | None = 10
    shape: str = "disc"
    radius: float | None = 12
    joint: bool = True
    softmax: str = "kept"
    keep_ties: bool = False
    subcell: bool = False
    finer: int = 1

    def __post_init__(self) -> None:
        """Errors: ValueError naming the field, what it was and what it may be."""
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected a number above 0")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; expected at least 1")
        if self.shape not in ("disc", "square"):
            raise ValueError(f"shape is {self.shape!r}; expected 'disc' or 'square'")
        lowest = 0.0 if self.shape == "square" else 1e-6
        if self.radius is not None and self.radius < lowest:
            raise ValueError(
                f"radius is {self.radius}; expected {'0 or more' if lowest == 0 else 'a number above 0'}"
            )
        if self.softmax not in ("kept", "frame"):
            raise ValueError(f"softmax is {self.softmax!r}; expected 'kept' or 'frame'")
        if self.softmax == "frame" and self.joint:
            raise ValueError("softmax='frame' normalises each frame by itself; it needs joint=False")
        if self.subcell and not self._keeps_k:
            raise ValueError(
                "subcell reads from k kept nodes; it needs top_k, softmax='kept' and keep_ties=False"
            )
        if self.finer < 1:
            raise ValueError(f"finer is {self.finer}; expected 1, or how many times closer the nodes are")
        if self.finer > 1 and not self.can_be_finer:
            raise ValueError(
                "finer > 1 looks round k kept nodes; it needs top_k, joint=True, softmax='kept' and keep_ties=False"
            )

    @property
    def _keeps_k(self) -> bool:
        return self.top_k is not None and not self.keep_ties and self.softmax == "kept"

    @property
    def can_be_finer(self) -> bool:
        """Whether `finer` may be above 1: there are k kept nodes of all frames to look round."""
        return self._keeps_k and self.joint


@dataclass(frozen=True)
class Reading:
    """What was read.

    Attributes:
        labels: (h, w, L) float32.
        similarity: (h, w) float32, the mean affinity of the kept nodes, weighted as the labels are.
    """

    labels: Tensor
    similarity: Tensor


@dataclass(frozen=True)
class Part:
    """Context frames that meet a tile in the same region.

    Attributes:
        scores: (frames * rows * columns, q), affinity of every reached context node with the q target nodes of the
            tile; -inf where the window forbids.
        nodes: (rows, columns) number of the context node within its frame.
        offsets: (frames,) number of the first node of each frame among all stored nodes.

    It lives in memory that the next tile uses again.
    """

    scores: Tensor
    nodes: Tensor
    offsets: Tensor

    def stored(self, candidates: Tensor) -> Tensor:
        """Row numbers among all stored nodes, of row numbers of `scores` (any shape)."""
        per_frame = self.nodes.numel()
        return self.offsets[candidates // per_frame] + self.nodes.flatten()[candidates % per_frame]


def readout(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    context: Sequence[int],
    free: Sequence[bool],
    rules: Rules,
    tile: tuple[int, int] | None = None,
    own: Tensor | None = None,
) -> Reading:
    """Read labels for every node of a frame.

    Args:
        query: (h, w, C) features of the target frame, L2-normalised where the protocol says so; float32 or half.
        keys: (S, h, w, C) features of stored frames, same dtype and device.
        values: (S, h, w, L) labels of stored frames, float32.
        context: which stored frames to read from, in order; a frame may be named several times, then counts as often.
        free: for each of them, True where the window does not hold.
        rules: the dialect.
        tile: rows and columns of target nodes done at once: the bound on memory. None: (8, 16) on a CPU, (32, 32) on a
            GPU. Memory is about tile nodes * context frames * reached nodes * bytes of the dtype. With `rules.finer`
            n they are of the coarse nodes, and tile nodes * top_k * 4 n^2 * C * bytes come on top.
        own: (S, h, w, 2), `own_shifts` of every stored frame, for `rules.subcell`; None computes them.

    Returns: Reading.

    Errors: ValueError when shapes disagree or the context is empty.
    """
    h, w, channels = query.shape
    if keys.shape[1:] != query.shape or values.shape[:3] != keys.shape[:3]:
        raise ValueError(
            f"query {tuple(query.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}; "
            "expected (h, w, C), (S, h, w, C), (S, h, w, L)"
        )
    if len(context) == 0 or len(context) != len(free):
        raise ValueError(
            f"{len(context)} context frames and {len(free)} window flags; expected as many, at least one"
        )
    table = values.flatten(0, 2)  # (S * N, L)
    labels = table.new_empty(h, w, table.shape[-1], dtype=torch.float32)
    similarity = table.new_empty(h, w, dtype=torch.float32)
    if not rules.subcell:
        own = None
    elif own is None:
        own = torch.stack([own_shifts(frame) for frame in keys])
    if rules.finer > 1:
        for targets, kept in _refined(query, keys, context, free, rules, tile):
            labels.view(h * w, -1)[targets], similarity.view(-1)[targets] = _read_kept(
                kept, table, rules, own
            )
        return Reading(labels, similarity)
    for y, x, block, parts in _tiles(query, keys, _groups(context, free, rules), rules, tile):
        if rules.softmax == "frame":
            read, best = _read_frames(parts, table, rules, len(context))
        elif rules.top_k is None or rules.keep_ties:
            read, best = _read_all(parts, table, rules)
        else:
            read, best = _read_kept(_joined(parts, rules), table, rules, own)
        rows, columns = block.shape[:2]
        labels[y : y + rows, x : x + columns] = read.view(rows, columns, -1)
        similarity[y : y + rows, x : x + columns] = best.view(rows, columns)
    return Reading(labels, similarity)


def _tiles(
    query: Tensor,
    keys: Sequence[Tensor] | Tensor,
    groups: Sequence[tuple[list[int], bool]],
    rules: Rules,
    tile: tuple[int, int] | None,
) -> Iterator[tuple[int, int, Tensor, list["Part"]]]:
    """(y, x), the target nodes (rows, columns, C) that begin there, and what they reach in every group of frames."""
    h, w, _ = query.shape
    rows, columns = tile or (CPU_TILE if query.device.type == "cpu" else CUDA_TILE)
    buffers = _Buffers(query)
    for y in range(0, h, rows):
        for x in range(0, w, columns):
            block = query[y : y + rows, x : x + columns]
            yield y, x, block, [_score(block, keys, y, x, group, rules, buffers) for group in groups]


class _Buffers:
    """Memory that the tiles of one readout share: a fresh allocation per tile would cost more than its arithmetic."""

    def __init__(self, like: Tensor) -> None:
        """Of the dtype and device of `like`."""
        self._like = like
        self._held: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor of that shape, which stays valid until the same name is asked for again."""
        count = math.prod(shape)
        if name not in self._held or self._held[name].numel() < count:
            self._held[name] = self._like.new_empty(count)
        return self._held[name][:count].view(shape)


def _groups(context: Sequence[int], free: Sequence[bool], rules: Rules) -> list[tuple[list[int], bool]]:
    """Stored frame numbers that meet the window, and those that do not: [(frames, windowed)]."""
    pairs = list(zip(context, free, strict=True))
    windowed = [frame for frame, unbound in pairs if rules.radius is not None and not unbound]
    unbounded = [frame for frame, unbound in pairs if rules.radius is None or unbound]
    return [(frames, bound) for frames, bound in ((windowed, True), (unbounded, False)) if frames]


def _score(
    block: Tensor,
    keys: Sequence[Tensor] | Tensor,
    y: int,
    x: int,
    group: tuple[list[int], bool],
    rules: Rules,
    buffers: _Buffers,
) -> Part:
    """Affinities of a tile of target nodes (rows, columns, C), whose first node is (y, x), with what it reaches."""
    h, w, channels = keys[0].shape
    q_rows, q_columns = block.shape[:2]
    queries = block.reshape(-1, channels).t().contiguous()  # (C, q)
    frames, windowed = group
    y0, y1, x0, x1 = 0, h, 0, w
    bias: Tensor | None = None
    if windowed:
        assert rules.radius is not None
        around = reach(rules.shape, rules.radius)
        y0, y1 = max(y - around, 0), min(y + q_rows + around, h)
        x0, x1 = max(x - around, 0), min(x + q_columns + around, w)
        dy = torch.arange(y0, y1)[:, None] - torch.arange(y, y + q_rows)  # (rows, q_rows)
        dx = torch.arange(x0, x1)[:, None] - torch.arange(x, x + q_columns)  # (columns, q_columns)
        inside = window(rules.shape, rules.radius, dy[:, None, :, None], dx[None, :, None, :])
        bias = torch.zeros(inside.shape, dtype=block.dtype).masked_fill_(~inside, -torch.inf)
        bias = bias.view(-1, q_rows * q_columns).to(block.device)  # (rows * columns, q)
    reached, q = (y1 - y0) * (x1 - x0), queries.shape[1]
    scores = buffers("windowed" if windowed else "free", len(frames), reached, q)
    for place, frame in enumerate(frames):
        region = keys[frame][y0:y1, x0:x1]  # (rows, columns, C)
        if not region.is_contiguous():
            region = buffers("region", *region.shape).copy_(region)
        if bias is None:
            torch.mm(region.view(reached, channels), queries, out=scores[place])
        else:
            torch.addmm(bias, region.view(reached, channels), queries, out=scores[place])
    numbers = torch.arange(h * w, device=block.device).view(h, w)
    offsets = torch.tensor(frames, device=block.device) * (h * w)
    return Part(scores.view(-1, q), numbers[y0:y1, x0:x1], offsets)


def _best(scores: Tensor, k: int, group: int) -> tuple[Tensor, Tensor]:
    """The k largest values of every column, exactly, by opening only the k best groups of `group` rows.

    Args:
        scores: (n, q), n a multiple of `group`.
        k: how many.
        group: rows that stand together.

    Returns: values and row numbers, each (q, min(k, n)), largest first.
    """
    n, q = scores.shape
    groups = n // group
    if groups <= 2 * k:
        values, rows = scores.t().topk(min(k, n), dim=1)
        return values, rows
    maxima = scores.view(groups, group, q).amax(1)  # (groups, q)
    opened = maxima.t().contiguous().topk(k, dim=1, sorted=False).indices  # (q, k)
    rows = (opened[:, :, None] * group + torch.arange(group, device=scores.device)).flatten(
        1
    )  # (q, k * group)
    values, chosen = scores.t().gather(1, rows).topk(k, dim=1)
    return values, rows.gather(1, chosen)


@functools.cache
def _group_size(n: int, k: int) -> int:
    """The divisor of n that makes the fewest comparisons: n / size maxima are looked through, then k * size values."""
    divisors = [size for size in range(1, n + 1) if n % size == 0]
    return min(divisors, key=lambda size: n / size + k * size)


@dataclass(frozen=True)
class Kept:
    """The best candidates of every target node, from one part or several.

    Attributes:
        values: (q, k) affinities.
        nodes: (q, k) row numbers among all stored nodes.
        shifts: (q, k, 2), see `_shifts`; None without `Rules.subcell`.
    """

    values: Tensor
    nodes: Tensor
    shifts: Tensor | None


def _kept(part: Part, rules: Rules) -> Kept:
    """The k best candidates of a part."""
    k = rules.top_k or len(part.scores)
    values, rows = _best(part.scores, k, _group_size(len(part.scores), k))
    return Kept(values, part.stored(rows), _shifts(part, values, rows) if rules.subcell else None)


def _shifts(part: Part, values: Tensor, rows: Tensor) -> Tensor:
    """From each kept candidate (q, k) to the peak of the parabola through its affinity and those beside it, per axis.

    Returns: (q, k, 2), (dy, dx); NaN along an axis that the window or the border cuts off there.
    """
    height, width = part.nodes.shape
    columns = part.scores.t()  # (q, n)
    place = rows % (height * width)
    shifts = []
    for position, length, stride in ((place // width, height, width), (place % width, width, 1)):
        inside = (position > 0) & (position < length - 1)
        before = columns.gather(1, torch.where(inside, rows - stride, rows)).float()
        after = columns.gather(1, torch.where(inside, rows + stride, rows)).float()
        shifts.append(_peak(before, values.float(), after).masked_fill(~inside, torch.nan))
    return torch.stack(shifts, dim=-1)


def _peak(before: Tensor, middle: Tensor, after: Tensor) -> Tensor:
    """Where the parabola through three values one apart has its top, from the middle; NaN where it has none."""
    bend = 2 * middle - before - after
    return torch.where((bend > 0) & bend.isfinite(), (after - before) / (2 * bend), torch.nan)


def own_shifts(frame: Tensor) -> Tensor:
    """`_shifts` of every node of (h, w, C) among the nodes of its own frame: (h, w, 2), NaN at the border.

    The affinities of a node with those beside it are seldom alike, so the parabola has its top beside the node even
    where a target node is that very node. What counts is how far the top is from there. One frame at a time: the
    products are as large as what they are of.
    """
    shifts = frame.new_full((*frame.shape[:2], 2), torch.nan, dtype=torch.float32)
    middle = frame.square().sum(-1, dtype=torch.float32)  # (h, w)
    down = (frame[1:] * frame[:-1]).sum(-1, dtype=torch.float32)  # (h - 1, w)
    right = (frame[:, 1:] * frame[:, :-1]).sum(-1, dtype=torch.float32)  # (h, w - 1)
    shifts[1:-1, :, 0] = _peak(down[:-1], middle[1:-1], down[1:])
    shifts[:, 1:-1, 1] = _peak(right[:, :-1], middle[:, 1:-1], right[:, 1:])
    return shifts


def _joined(parts: list[Part], rules: Rules) -> Kept:
    """What is kept of all parts: the k best together, or those of every frame."""
    if rules.joint:
        found = [_kept(part, rules) for part in parts]
    else:
        found = [_kept(frame, rules) for part in parts for frame in _frames(part)]
    values = torch.cat([kept.values for kept in found], dim=1)
    nodes = torch.cat([kept.nodes for kept in found], dim=1)
    shifts = (
        torch.cat([kept.shifts for kept in found if kept.shifts is not None], dim=1)
        if rules.subcell
        else None
    )
    if rules.joint and len(found) > 1:
        assert rules.top_k is not None
        values, chosen = values.topk(min(rules.top_k, values.shape[1]), dim=1)
        nodes = nodes.gather(1, chosen)
        shifts = None if shifts is None else shifts.gather(1, chosen[:, :, None].expand(-1, -1, 2))
    return Kept(values, nodes, shifts)


def _read_kept(kept: Kept, table: Tensor, rules: Rules, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """Softmax over what is kept. Returns labels (q, L) and similarity (q,)."""
    values, nodes = kept.values.float(), kept.nodes
    weights = (values / rules.temperature).softmax(1)  # (q, k)
    if kept.shifts is not None and own is not None:
        nodes, shares = _around(nodes, kept.shifts, own)
        labels = _sum(nodes, weights[:, :, None] * shares, table)
    else:
        labels = _sum(nodes, weights, table)
    return labels, _weighted_mean(weights, values)


def _refined(
    query: Tensor,
    keys: Tensor,
    context: Sequence[int],
    free: Sequence[bool],
    rules: Rules,
    tile: tuple[int, int] | None,
) -> Iterator[tuple[Tensor, Kept]]:
    """Coarse to fine: target nodes by their numbers (t,), and what they keep; every node comes once.

    Every n-th node (n = `rules.finer`) finds its k best among every n-th node of the context. The n x n target nodes of
    its cell are then compared with all nodes of the patches round these: 2n x 2n nodes each, the cell that a coarse
    node begins and half a cell on every side. Of these the k best are kept. A node that stands in several patches of a
    frame counts once; one of a frame that the context names twice counts twice, as without a coarse search.
    """
    n, (h, w, channels) = rules.finer, query.shape
    assert rules.top_k is not None
    # Until `slots` is asked, frames are numbered by their position in the context.
    coarse = [keys[slot, ::n, ::n] for slot in context]
    groups = _groups(range(len(context)), free, rules)
    slots = torch.tensor(context, device=query.device)
    plain = replace(rules, subcell=False)
    for y, x, block, parts in _tiles(query[::n, ::n], coarse, groups, plain, tile):
        found = _joined(parts, plain)
        frame, node = found.nodes // coarse[0][..., 0].numel(), found.nodes % coarse[0][..., 0].numel()
        within, there = _patches(node, coarse[0].shape[1], n, (h, w))  # (q, k, 2n, 2n)
        there &= found.values.isfinite()[:, :, None, None]
        frame, slot = (number[:, :, None, None] * (h * w) for number in (frame, slots[frame]))
        unique = (frame + within).masked_fill(~there, -1).flatten(1)  # (q, m)
        stored = (slot + within).flatten(1)
        targets, real = _cells(y, x, block.shape[:2], n, (h, w))  # (q, n * n)
        scores = query.reshape(-1, channels)[targets] @ keys.view(-1, channels)[stored].transpose(1, 2)
        allowed = scores.masked_fill(((unique < 0) | _seen_before(unique))[:, None], -torch.inf)
        values, chosen = allowed.topk(min(rules.top_k, allowed.shape[-1]), dim=2)  # (q, n * n, kept)
        kept = stored[:, None].expand(-1, n * n, -1).gather(2, chosen)
        shifts = _patch_shifts(scores, there, chosen)[real] if rules.subcell else None
        yield targets[real], Kept(values[real], kept[real], shifts)


def _patches(node: Tensor, width: int, n: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Fine nodes of the patches round coarse nodes (q, k) of a grid of that width.

    Returns: their numbers within the frame of h x w nodes (q, k, 2n, 2n), and where they are inside it.
    """
    h, w = size
    steps = torch.arange(2 * n, device=node.device) - n // 2
    rows = (node // width * n)[:, :, None, None] + steps[:, None]  # (q, k, 2n, 1)
    columns = (node % width * n)[:, :, None, None] + steps  # (q, k, 1, 2n)
    there = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    return rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1), there


def _cells(y: int, x: int, block: Sequence[int], n: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Fine nodes of the cells of a block (rows, columns) of coarse nodes, whose first one is (y, x).

    Returns: their numbers within the frame of h x w nodes (q, n * n), and where they are inside it.
    """
    h, w = size
    rows = torch.arange(y * n, (y + block[0]) * n).view(-1, 1, n, 1)
    columns = torch.arange(x * n, (x + block[1]) * n).view(1, -1, 1, n)
    numbers, real = rows.clamp_max(h - 1) * w + columns.clamp_max(w - 1), (rows < h) & (columns < w)
    return numbers.reshape(-1, n * n), real.reshape(-1, n * n)


def _seen_before(numbers: Tensor) -> Tensor:
    """Of (q, m) whole numbers: bool (q, m), True where the same number stands further left in the row."""
    ordered, order = numbers.sort(dim=1, stable=True)
    again = torch.zeros_like(ordered, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return torch.empty_like(again).scatter_(1, order, again)


def _patch_shifts(scores: Tensor, there: Tensor, chosen: Tensor) -> Tensor:
    """As `_shifts`, of nodes chosen from patches: NaN along an axis that the patch or the frame cuts off there.

    Args:
        scores: (q, t, k * s * s), affinities of t target nodes with the same k patches of s x s nodes.
        there: bool (q, k, s, s), False beyond the frame.
        chosen: (q, t, kept), places among the k * s * s.

    Returns: (q, t, kept, 2), (dy, dx).
    """
    side = there.shape[-1]
    scores = scores.float().masked_fill(~there.flatten(1)[:, None], torch.nan)
    middle = scores.gather(2, chosen)
    shifts = []
    for position, step in ((chosen // side % side, side), (chosen % side, 1)):
        inside = (position > 0) & (position < side - 1)
        before = scores.gather(2, torch.where(inside, chosen - step, chosen))
        after = scores.gather(2, torch.where(inside, chosen + step, chosen))
        shifts.append(_peak(before, middle, after).masked_fill(~inside, torch.nan))
    return torch.stack(shifts, dim=-1)


def _around(nodes: Tensor, shifts: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The four nodes round each shifted node (q, k), and the bilinear share of each: both (q, k, 4).

    A shift counts from the node's own in (S, h, w, 2), is at most half a cell, and 0 where one of the two is not known.
    """
    width = own.shape[2]
    shifts = (shifts - own.flatten(0, 2)[nodes]).nan_to_num(0.0).clamp(-0.5, 0.5)
    down, right = shifts.sign().long().unbind(-1)
    dy, dx = shifts.abs().unbind(-1)
    corners = torch.stack([nodes, nodes + down * width, nodes + right, nodes + down * width + right], dim=-1)
    shares = torch.stack([(1 - dy) * (1 - dx), dy * (1 - dx), (1 - dy) * dx, dy * dx], dim=-1)
    return corners, shares


def _sum(nodes: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    """Labels (q, L) of stored nodes (q, ...), summed by weights of the same shape."""
    weights = weights.flatten(1).to(table.dtype)
    return F.embedding_bag(nodes.flatten(1), table, per_sample_weights=weights, mode="sum").float()


def _read_all(parts: list[Part], table: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """Softmax over everything allowed, or over all that reaches the k-th best value."""
    threshold: Tensor | None = None
    if rules.top_k is not None:
        best = torch.cat([_kept(part, rules).values for part in parts], dim=1)  # (q, parts * k)
        threshold = best.topk(min(rules.top_k, best.shape[1]), dim=1).values[:, -1]  # (q,)
    scores = torch.cat([part.scores for part in parts]).float()  # (n, q)
    rows = torch.cat(
        [part.stored(torch.arange(len(part.scores), device=table.device)) for part in parts]
    )  # (n,)
    if threshold is not None:
        scores = scores.masked_fill(scores < threshold.float(), -torch.inf)
    weights = (scores / rules.temperature).softmax(0)  # (n, q)
    labels = weights.t() @ table[rows].float()
    return labels, _weighted_mean(weights.t(), scores.t())


def _read_frames(parts: list[Part], table: Tensor, rules: Rules, frames: int) -> tuple[Tensor, Tensor]:
    """Softmax over every frame by itself, k best weights of each as they are, divided by the number of frames."""
    labels: Tensor | None = None
    similarity: Tensor | None = None
    for part in parts:
        for frame in _frames(part):
            total = (frame.scores.float() / rules.temperature).logsumexp(0)  # (q,)
            kept = _kept(frame, rules)
            values = kept.values.float()
            weights = (values / rules.temperature - total[:, None]).exp()  # (q, k)
            read = _sum(kept.nodes, weights, table)
            best = _weighted_mean(weights / weights.sum(1, keepdim=True), values)
            labels = read if labels is None else labels + read
            similarity = best if similarity is None else similarity + best
    assert labels is not None
    assert similarity is not None
    return labels / frames, similarity / frames


def _frames(part: Part) -> Iterator[Part]:
    """The frames of a part one by one."""
    per_frame = part.nodes.numel()
    for position in range(len(part.offsets)):
        scores = part.scores[position * per_frame : (position + 1) * per_frame]
        yield Part(scores, part.nodes, part.offsets[position : position + 1])


def _weighted_mean(weights: Tensor, values: Tensor) -> Tensor:
    """Row-wise sum of weights * values (q, k) where the weight is not 0: forbidden nodes are -inf."""
    return (weights * values.masked_fill(weights == 0, 0.0)).sum(1)
