"""The readout equals the plain dense computation, in every dialect, for every tile."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from retrace.walk import neighborhood
from retrace.walk.nodes import normalise
from retrace.walk.readout import Rules, _best, readout

H, W, C, L = 7, 11, 12, 3


def stored(frames: int = 4, dtype: torch.dtype = torch.float32, seed: int = 0):
    """Stored."""
    generator = torch.Generator().manual_seed(seed)
    keys = normalise(torch.randn(frames, H, W, C, generator=generator), -1).to(dtype)
    query = normalise(torch.randn(H, W, C, generator=generator), -1).to(dtype)
    values = torch.rand(frames, H, W, L, generator=generator)
    return query, keys, values


def dense(query, keys, values, context, free, rules: Rules):
    """Full node x node affinity per context frame, masked, and everything sorted."""
    inside = torch.ones(H * W, H * W, dtype=torch.bool)
    if rules.radius is not None:
        shape = neighborhood.disc if rules.shape == "disc" else neighborhood.square
        inside = shape(H, W, rules.radius)
    labels = torch.zeros(H * W, L)
    similarity = torch.zeros(H * W)
    table = values[context].reshape(-1, H, W, L)
    frame_of = torch.arange(len(context)).repeat_interleave(H * W)
    rows = values[context].reshape(-1, L)
    allowed = torch.cat([torch.ones_like(inside) if unbound else inside for unbound in free], dim=1)
    everything = query.view(-1, C).float() @ keys[context].reshape(-1, C).float().T
    for i in range(H * W):
        scores = everything[i].masked_fill(~allowed[i], -torch.inf)
        keep = torch.zeros(len(scores), dtype=torch.bool)
        groups = [frame_of >= 0] if rules.joint else [frame_of == place for place in range(len(context))]
        weights = torch.zeros(len(scores))
        for group in groups:
            (members,) = torch.where(group & allowed[i])
            k = len(members) if rules.top_k is None else min(rules.top_k, len(members))
            keep[members[scores[members].topk(k).indices]] = True
            if rules.softmax == "frame":
                weights[members] = (scores[members] / rules.temperature).softmax(0) / len(context)
        if rules.softmax == "kept":
            weights = (scores / rules.temperature).masked_fill(~keep, -torch.inf).softmax(0)
        else:
            weights = weights * keep
        labels[i] = weights @ rows
        if rules.subcell:
            planes = scores.view(len(context), H, W)
            labels[i] = 0
            for j in torch.where(keep)[0].tolist():
                place, y, x = j // (H * W), j % (H * W) // W, j % W
                at = peak(planes[place], keys[context[place]].float(), y, x)
                labels[i] += weights[j] * between(table[place], *at)
        similarity[i] = (weights * scores.masked_fill(weights == 0, 0)).sum()
    return labels.view(H, W, L), similarity.view(H, W)


def tops(plane, y: int, x: int) -> list[float]:
    """Of the parabolas through (y, x) and the nodes beside it, from (y, x); NaN where there is none."""
    found = []
    for before, after in (((y - 1, x), (y + 1, x)), ((y, x - 1), (y, x + 1))):
        shift = math.nan
        if min(before) >= 0 and after[0] < H and after[1] < W:
            left, middle, right = (float(plane[at]) for at in (before, (y, x), after))
            curvature = left - 2 * middle + right
            if left > -math.inf and right > -math.inf and curvature < 0:
                shift = (left - right) / (2 * curvature)
        found.append(shift)
    return found


def peak(plane, frame, y: int, x: int) -> list[float]:
    """(y, x) moved by how far its parabolas' tops are from those of the node among its own frame (H, W, C)."""
    moves = [
        there - own for there, own in zip(tops(plane, y, x), tops(frame @ frame[y, x], y, x), strict=True)
    ]
    moves = [0.0 if math.isnan(move) else min(max(move, -0.5), 0.5) for move in moves]
    return [y + moves[0], x + moves[1]]


def between(plane, y: float, x: float):
    """Bilinear value of a map (H, W, L)."""
    top, left = math.floor(y), math.floor(x)
    value = torch.zeros(plane.shape[-1])
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        share = (1 - abs(y - row)) * (1 - abs(x - column))
        if share > 0:
            value += share * plane[row, column]
    return value


DIALECTS = [
    Rules(0.07, 10, "disc", 3),
    Rules(0.07, 10, "disc", 3.5),
    Rules(0.07, 5, "square", 2),
    Rules(0.1, 4, "disc", None),
    Rules(0.2, None, "disc", 3),
    Rules(0.07, None, "disc", None),
    Rules(0.07, 3, "square", 2, joint=False),
    Rules(0.07, 10, "disc", 3, subcell=True),
    Rules(0.07, 4, "square", 2, subcell=True),
    Rules(0.2, 3, "disc", 3, joint=False, subcell=True),
    Rules(0.07, 10, "disc", 1.0),  # the window is the cell itself: fewer candidates than k
]


@pytest.mark.parametrize("rules", DIALECTS, ids=repr)
@pytest.mark.parametrize("tile", [(2, 3), (4, 16), None])
def test_equals_dense(rules, tile):
    """Equals dense."""
    query, keys, values = stored()
    # the same node in a windowed and in a free frame is a tie, with different nodes beside it
    context, free = [2 if rules.subcell else 0, 0, 3, 1], [True, False, False, False]
    reading = readout(query, keys, values, context=context, free=free, rules=rules, tile=tile)
    labels, similarity = dense(query, keys, values, context, free, rules)
    torch.testing.assert_close(reading.labels, labels, atol=1e-5, rtol=0)
    if rules.joint:
        torch.testing.assert_close(reading.similarity, similarity, atol=1e-5, rtol=0)


@pytest.mark.parametrize("radius", [None, 3])
def test_frame_softmax_equals_dense(radius):
    """TimeCycle: full softmax per frame, top-k weights not renormalised, divided by the number of frames."""
    rules = Rules(512**-0.5, 5, "disc", radius, joint=False, softmax="frame")
    query, keys, values = stored()
    context, free = [0, 2, 3], [False, False, True]
    reading = readout(query, keys, values, context=context, free=free, rules=rules, tile=(3, 4))
    labels, _ = dense(query, keys, values, context, free, rules)
    torch.testing.assert_close(reading.labels, labels, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype):
    """Half precision is near."""
    query, keys, values = stored()
    rules = Rules(0.2, None, "disc", 4)  # without top-k a rounded affinity cannot swap a neighbour in
    arguments = {"context": [0, 1, 2], "free": [True, False, False], "rules": rules}
    exact = readout(query, keys, values, **arguments)
    near = readout(query.to(dtype), keys.to(dtype), values, **arguments)
    assert near.labels.dtype == torch.float32
    torch.testing.assert_close(near.labels, exact.labels, atol=0.02, rtol=0)


def test_ties_are_kept_all_of_them():
    """DINO: every node that ties with the k-th is kept. Two equal frames make every affinity a tie."""
    query, keys, values = stored()
    keys[1] = keys[0]
    rules = Rules(0.1, 1, "square", 2, keep_ties=True)
    reading = readout(query, keys, values, context=[0, 1], free=[False, False], rules=rules)
    pairs = readout(
        query, keys, values, context=[0, 1], free=[False, False], rules=Rules(0.1, 2, "square", 2)
    )
    torch.testing.assert_close(reading.labels, pairs.labels)
    single = readout(query, keys, values, context=[0, 2], free=[False, False], rules=rules)
    labels, _ = dense(query, keys, values, [0, 2], [False, False], rules)
    torch.testing.assert_close(single.labels, labels)


def test_any_subset_of_frames_may_be_free():
    """Any subset of frames may be free."""
    query, keys, values = stored()
    rules = Rules(0.07, 6, "disc", 2)
    for free in itertools.product([False, True], repeat=3):
        reading = readout(query, keys, values, context=[2, 0, 1], free=free, rules=rules, tile=(3, 5))
        labels, _ = dense(query, keys, values, [2, 0, 1], free, rules)
        torch.testing.assert_close(reading.labels, labels, atol=1e-5, rtol=0)


def test_weights_sum_to_one_and_stay_in_range():
    """Weights sum to one and stay in range."""
    query, keys, values = stored()
    ones = torch.ones_like(values[..., :1])
    reading = readout(query, keys, torch.cat([values, ones], -1), context=[1], free=[False], rules=Rules())
    torch.testing.assert_close(reading.labels[..., -1], torch.ones(H, W))
    assert reading.labels.min() >= 0
    assert reading.labels.max() <= 1 + 1e-6


def test_a_frame_reads_itself():
    """A frame reads itself."""
    query, keys, values = stored()
    reading = readout(
        keys[2].clone(), keys, values, context=[2], free=[False], rules=Rules(0.01, 1, "disc", 3)
    )
    torch.testing.assert_close(reading.labels, values[2])
    torch.testing.assert_close(reading.similarity, torch.ones(H, W))


@pytest.mark.parametrize(("n", "group", "k"), [(120, 6, 5), (120, 40, 10), (30, 3, 10), (8, 4, 10)])
def test_best_is_exact(n, group, k):
    """Best is exact."""
    scores = torch.randn(n, 17, generator=torch.Generator().manual_seed(1))
    values, rows = _best(scores, k, group)
    expected = scores.t().topk(min(k, n), dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(scores.t().gather(1, rows), values)


def test_arguments_stay_as_they_were():
    """Arguments stay as they were."""
    query, keys, values = stored()
    before = [query.clone(), keys.clone(), values.clone()]
    readout(query, keys, values, context=[0, 1], free=[True, False], rules=Rules())
    for old, new in zip(before, [query, keys, values], strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"shape": "circle"}, "shape"),
        ({"radius": 0.0}, "radius"),
        ({"softmax": "all"}, "softmax"),
        ({"softmax": "frame"}, "joint=False"),
    ],
)
def test_rules_refuse_what_means_nothing(arguments, word):
    """Rules refuse what means nothing."""
    with pytest.raises(ValueError, match=word):
        Rules(**arguments)


def test_shapes_are_checked():
    """Shapes are checked."""
    query, keys, values = stored()
    with pytest.raises(ValueError, match="expected"):
        readout(query[:-1], keys, values, context=[0], free=[False], rules=Rules())
    with pytest.raises(ValueError, match="at least one"):
        readout(query, keys, values, context=[], free=[], rules=Rules())


@pytest.mark.parametrize(("dy", "dx"), [(0.0, 0.3), (-0.45, 0.2), (1.25, -0.4)])
def test_subcell_reads_between_the_nodes(dy, dx):
    """Features that say where a point is, and labels that are its coordinates: what is read is the point itself."""
    rows, columns = torch.meshgrid(torch.arange(H).float(), torch.arange(W).float(), indexing="ij")
    places = torch.cartesian_prod(torch.linspace(-1, H, 24), torch.linspace(-1, W, 32))  # of soft bumps

    def features(y, x):
        distance = (y[..., None] - places[:, 0]) ** 2 + (x[..., None] - places[:, 1]) ** 2
        return normalise((-distance / 8).exp(), -1)

    query, keys = features(rows + dy, columns + dx), features(rows, columns)[None]
    values = torch.stack([rows, columns], dim=-1)[None]
    true = torch.stack([rows + dy, columns + dx], dim=-1)[2:-2, 2:-2]
    error = {}
    for subcell in (True, False):
        rules = Rules(0.001, 1, "disc", 3, subcell=subcell)
        labels = readout(query, keys, values, context=[0], free=[False], rules=rules).labels
        error[subcell] = (labels[2:-2, 2:-2] - true).abs().amax().item()
    assert error[True] < 0.05  # a parabola is not quite the shape of the peak
    assert error[False] == pytest.approx(max(abs(dy - round(dy)), abs(dx - round(dx))), abs=1e-4)


def test_subcell_keeps_what_stands_still():
    """A frame reads its own labels back, though the affinities on the two sides of a node differ."""
    _, keys, values = stored(1)
    rules = Rules(0.001, 1, "disc", 3, subcell=True)
    labels = readout(keys[0], keys, values, context=[0], free=[False], rules=rules).labels
    torch.testing.assert_close(labels, values[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "rules",
    [{"top_k": None}, {"keep_ties": True}, {"softmax": "frame", "joint": False}],
    ids=repr,
)
def test_subcell_needs_kept_nodes(rules):
    """Where not k nodes are kept there is nothing to move."""
    with pytest.raises(ValueError, match="subcell reads from k kept nodes"):
        Rules(**rules, subcell=True)


def refined(query, keys, values, context, free, rules: Rules):
    """Coarse to fine, one cell and one node at a time."""
    n, (h, w, _) = rules.finer, query.shape
    ch, cw = -(-h // n), -(-w // n)
    labels, similarity = torch.zeros(h, w, L), torch.zeros(h, w)
    for y, x in itertools.product(range(ch), range(cw)):
        found = []
        for (place, slot), row, column in itertools.product(enumerate(context), range(ch), range(cw)):
            far = (row - y) ** 2 + (column - x) ** 2 >= (rules.radius or math.inf) ** 2
            if free[place] or not far:
                score = float(query[y * n, x * n] @ keys[slot, row * n, column * n])
                found.append((score, place, row, column))
        best = sorted(found, reverse=True)[: rules.top_k]
        patches: dict[tuple[int, int, int], torch.Tensor] = {}  # of every node, the first patch that holds it
        for _, place, row, column in best:
            rows = range(max(row * n - n // 2, 0), min(row * n + n + n // 2, h))
            columns = range(max(column * n - n // 2, 0), min(column * n + n + n // 2, w))
            patch = torch.zeros(h, w, dtype=torch.bool)
            patch[rows.start : rows.stop, columns.start : columns.stop] = True
            for node in itertools.product([place], rows, columns):
                patches.setdefault(node, patch)
        for i, j in itertools.product(range(y * n, min(y * n + n, h)), range(x * n, min(x * n + n, w))):
            planes = [keys[slot] @ query[i, j] for slot in context]
            scores = {node: float(planes[node[0]][node[1:]]) for node in patches}
            kept = sorted(scores, key=scores.__getitem__, reverse=True)[: rules.top_k]
            weights = (torch.tensor([scores[node] for node in kept]) / rules.temperature).softmax(0)
            for weight, node in zip(weights, kept, strict=True):
                place, row, column = node
                at = [float(row), float(column)]
                if rules.subcell:
                    seen = planes[place].masked_fill(~patches[node], -torch.inf)
                    at = peak(seen, keys[context[place]], row, column)
                labels[i, j] += weight * between(values[context[place]], *at)
                similarity[i, j] += weight * scores[node]
    return labels, similarity


@pytest.mark.parametrize("tile", [(2, 3), None])
@pytest.mark.parametrize(
    "rules",
    [
        Rules(0.07, 3, "disc", 2, finer=2),
        Rules(0.2, 4, "disc", 1.5, subcell=True, finer=2),
        Rules(0.2, 10, "disc", None, subcell=True, finer=2),
        Rules(0.1, 2, "disc", None, finer=4),
        Rules(0.1, 10, "disc", 1.0, finer=2),  # fewer coarse nodes than k
    ],
    ids=repr,
)
def test_coarse_to_fine(rules, tile):
    """Equals the loop over cells and nodes, with frames of odd sides, a frame named twice and one without window."""
    query, keys, values = stored()
    context, free = [2, 0, 0, 3], [True, False, False, False]
    if rules.subcell:
        context, free = [2, 0, 1, 3], [True, False, False, False]  # ties have other nodes beside them
    reading = readout(query, keys, values, context=context, free=free, rules=rules, tile=tile)
    labels, similarity = refined(query, keys, values, context, free, rules)
    torch.testing.assert_close(reading.labels, labels, atol=1e-5, rtol=0)
    torch.testing.assert_close(reading.similarity, similarity, atol=1e-5, rtol=0)


def test_coarse_to_fine_sees_all_where_all_is_kept():
    """With as many kept as there are nodes, nothing is lost by looking coarsely first."""
    query, keys, values = stored()
    many = Rules(0.1, 4 * H * W, "disc", None, finer=2)
    fine = readout(query, keys, values, context=[0, 1, 3], free=[False] * 3, rules=many)
    plain = readout(query, keys, values, context=[0, 1, 3], free=[False] * 3, rules=replace(many, finer=1))
    torch.testing.assert_close(fine.labels, plain.labels, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"finer": 0}, "finer is 0"),
        ({"finer": 2, "top_k": None}, "finer > 1 looks round k kept nodes"),
        ({"finer": 2, "joint": False}, "finer > 1 looks round k kept nodes"),
    ],
)
def test_coarse_to_fine_needs_kept_nodes(fields, message):
    """A sentence for rules that keep no k nodes."""
    with pytest.raises(ValueError, match=message):
        Rules(**fields)
