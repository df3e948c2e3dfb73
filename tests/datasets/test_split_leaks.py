"""Splits against plain Python: sets of labels for parts, and a walk over every sample."""

import itertools
from dataclasses import dataclass, field

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd

# A tick is a label as an integer; None where it is missing.
KINDS = {
    "datetime": lambda tick: np.datetime64("2001-02-20", "ns") + np.timedelta64(tick, "D"),
    "cftime": lambda tick: cftime.num2date(tick, "days since 2001-02-20", calendar="360_day"),
    "float": lambda tick: 0.5 * tick - 3,
    "integer": lambda tick: 3 * tick,
    "text": lambda tick: f"name {tick:03}",
}
GAPS = {
    "datetime": lambda ticks: f"{ticks}D",
    "cftime": lambda ticks: np.timedelta64(ticks, "D"),
    "float": lambda ticks: 0.5 * ticks,
    "integer": lambda ticks: 3.0 * ticks,
}
MISSING = {"datetime": np.datetime64("NaT", "ns"), "cftime": None, "float": np.nan}


@dataclass
class Case:
    """Data with a dim of time and perhaps one of lead, and samples of it.

    `ticks` has the labels that are split over `dims`, `sign` is -1 where they descend.
    """

    ds: xr.Dataset
    input_dims: dict
    overlap: dict
    targets: dict
    along: str
    kind: str
    dims: tuple
    ticks: np.ndarray
    sign: int = 1
    where: np.ndarray | None = None
    windows: list = field(default_factory=list)

    def __post_init__(self):
        starts = {}
        for dim, length in self.ds["v"].sizes.items():
            size = self.input_dims.get(dim, 1)
            stride = size - self.overlap.get(dim, 0)
            starts[dim] = range(0, length - size + 1, stride)
        order = [*(dim for dim in starts if dim not in self.input_dims), *self.input_dims]
        self.order = order
        self.windows = list(itertools.product(*(starts[dim] for dim in order)))

    def samples(self):
        return xtd.MapDataset(
            self.ds,
            self.input_dims,
            self.overlap,
            inputs="v",
            targets=xtd.Select("v", self.targets),
            where=self.where,
            breaks="ignore",  # the oracle counts by position
        )

    def ticks_of(self, window, of_targets):
        """The labels of a window, or of its targets: a list of ticks."""
        at = dict(zip(self.order, window, strict=True))
        places = []
        for dim in self.dims:
            steps = np.arange(self.input_dims.get(dim, 1))
            if of_targets and dim in self.targets:
                steps = np.atleast_1d(steps[self.targets[dim]])
            places.append(at[dim] + steps)
        return self.ticks[np.ix_(*places)].ravel().tolist()

    def label(self, tick):
        return KINDS[self.kind](tick)

    @property
    def different(self):
        """The different ticks, in the order of the split."""
        found = {tick for tick in self.ticks.ravel().tolist() if tick is not None}
        return sorted(found, key=lambda tick: self.sign * tick)

    # The contract.

    def allowed(self, part, by):
        """Windows of a part, which is a list of stretches, each a set of ticks."""
        own = set().union(*part)
        found = set()
        for window in self.windows:
            every = self.ticks_of(window, of_targets=False)
            if by == "windows":
                if set(every) <= own:
                    found.add(window)
                continue
            targets = self.ticks_of(window, of_targets=True)
            if not set(targets) <= own:
                continue
            first = min(targets, key=lambda tick: self.sign * tick)
            (stretch,) = (stretch for stretch in part if first in stretch)
            begin = min(self.sign * tick for tick in stretch)
            others = [tick for tick in every if tick is not None and tick not in own]
            if all(self.sign * tick < begin for tick in others):
                found.add(window)
        return found

    def kept(self, windows):
        """Those of some windows that `where` keeps."""
        if self.where is None:
            return set(windows)
        return {w for w, wanted in zip(self.windows, self.where, strict=True) if wanted} & windows

    # What there is.

    def found(self, dataset):
        """Windows of a dataset, once their values have been compared."""
        batch = dataset.fetch(range(len(dataset)))
        numbers = batch.index.tolist()
        assert numbers == sorted(set(numbers))
        windows = []
        for number, x in zip(numbers, batch.x.numpy(), strict=True):
            cut = dataset.windows[number]
            expected = self.ds["v"].isel(cut).transpose(*self.input_dims)
            np.testing.assert_array_equal(x, expected)
            starts = (each.start if isinstance(each, slice) else each for each in cut.values())
            by_dim = dict(zip(cut, starts, strict=True))
            windows.append(tuple(by_dim[dim] for dim in self.order))
        return set(windows)

    def named(self, windows, by):
        """The ticks that a split goes by, of some windows."""
        ticks = (self.ticks_of(window, by == "targets") for window in windows)
        return set(itertools.chain.from_iterable(ticks))


@st.composite
def windows_along(draw, length):
    """Size and overlap of a window, and the steps of it that are targets."""
    size = draw(st.integers(1, max(1, length // 3)))
    overlap = draw(st.integers(0, size - 1))
    first = draw(st.integers(0, size - 1))
    last = draw(st.integers(first, size - 1))
    step = draw(st.integers(1, 2))
    indexer = draw(st.sampled_from([slice(first, last + 1, step), first, slice(None)]))
    return size, overlap, indexer


@st.composite
def along_a_dim(draw, kinds=("datetime", "cftime", "float", "integer", "text")):
    """The dim itself, whose labels ascend or descend; more steps of another dim beside."""
    kind = draw(st.sampled_from(kinds))
    steps = draw(st.lists(st.integers(1, 3), min_size=6, max_size=24))
    ticks = np.cumsum(steps)
    sign = draw(st.sampled_from([1, -1]))
    ticks = ticks[::sign]
    size, overlap, indexer = draw(windows_along(len(ticks)))
    labels = [KINDS[kind](tick) for tick in ticks.tolist()]
    ds = xr.Dataset({"v": (("time", "x"), np.arange(2.0 * len(ticks)).reshape(-1, 2))})
    ds = ds.assign_coords(time=labels)
    return _filtered(
        draw,
        Case(
            ds, {"time": size}, {"time": overlap}, {"time": indexer}, "time", kind, ("time",),
            _objects(ticks.tolist(), ticks.shape), sign,
        ),
    )  # fmt: skip


@st.composite
def along_a_coordinate(draw, kinds=("datetime", "cftime", "float", "text")):
    """A coordinate of the dim, whose labels come in any order, twice, or not at all."""
    kind = draw(st.sampled_from(kinds))
    length = draw(st.integers(6, 24))
    if draw(st.booleans()):  # runs of one label, as names of storms
        ticks = np.repeat(draw(st.permutations(range(length))), draw(st.integers(1, 6)))[:length]
    else:
        ticks = np.array(draw(st.lists(st.integers(0, 12), min_size=length, max_size=length)))
    ticks = _with_holes(draw, ticks.astype(object), kind)
    size, overlap, indexer = draw(windows_along(length))
    ds = xr.Dataset({"v": ("time", np.arange(float(length)))})
    ds = ds.assign_coords(label=("time", _labels(kind, ticks)))
    return _filtered(
        draw,
        Case(
            ds, {"time": size}, {"time": overlap}, {"time": indexer}, "label", kind, ("time",),
            ticks,
        ),
    )  # fmt: skip


@st.composite
def along_two_dims(draw, kinds=("datetime", "cftime", "float")):
    """The valid time of forecasts: that of init and lead together."""
    kind = draw(st.sampled_from(kinds))
    inits = np.cumsum(draw(st.lists(st.integers(1, 3), min_size=3, max_size=9)))
    leads = np.cumsum(draw(st.lists(st.integers(1, 3), min_size=2, max_size=7)))
    shape = len(inits), len(leads)
    ticks = _with_holes(draw, (inits[:, None] + leads).astype(object), kind)
    input_dims, overlaps, targets = {}, {}, {}
    for dim in draw(st.sampled_from([("lead",), ("lead", "init"), ("init",), ("init", "lead")])):
        length = shape[("init", "lead").index(dim)]
        input_dims[dim], overlaps[dim], targets[dim] = draw(windows_along(length))
    names = draw(st.permutations(["init", "lead", "x"]))
    v = xr.DataArray(np.arange(2.0 * ticks.size).reshape(*shape, 2), dims=("init", "lead", "x"))
    ds = xr.Dataset({"v": v.transpose(*names)})
    ds = ds.assign_coords(valid=(("init", "lead"), _labels(kind, ticks)))
    return _filtered(
        draw, Case(ds, input_dims, overlaps, targets, "valid", kind, ("init", "lead"), ticks)
    )


def _objects(values, shape):
    found = np.empty(shape, dtype=object)
    found.ravel()[:] = values
    return found


def _with_holes(draw, ticks, kind):
    """Ticks of which some may be missing."""
    if kind in MISSING and draw(st.booleans()):
        for place in draw(st.sets(st.integers(0, ticks.size - 1), max_size=2)):
            ticks.ravel()[place] = None
    return ticks


def _labels(kind, ticks):
    made = [MISSING.get(kind) if t is None else KINDS[kind](t) for t in ticks.ravel().tolist()]
    if kind in ("cftime", "text"):
        return _objects(made, ticks.shape)
    return np.array(made).reshape(ticks.shape)


def _filtered(draw, case):
    if draw(st.booleans()):
        seed = draw(st.integers(0, 99))
        case.where = np.random.default_rng(seed).random(len(case.windows)) < 0.7
        assume(case.where.any())
    return case


ALONG = along_a_dim, along_a_coordinate, along_two_dims
any_case = st.one_of(*(along() for along in ALONG))
case_of_times = st.one_of(*(along(("datetime",)) for along in ALONG))
bys = st.sampled_from(["windows", "targets"])


def assert_parts(make, case, stretches, by):
    """A split has all windows that its parts allow, and none that they do not."""
    expected = [case.kept(case.allowed(part, by)) for part in stretches]
    try:
        parts = make()
    except ValueError as error:
        assert "has no sample" in str(error) or "where leaves none" in str(error)
        assert not all(expected)
        return None
    assert all(expected)
    assert [case.found(part) for part in parts] == expected
    assert [len(part) for part in parts] == [len(some) for some in expected]
    assert parts.left_out == len(case.samples()) - sum(map(len, expected))
    named = [case.named(some, by) for some in expected]
    assert not any(one & other for one, other in itertools.combinations(named, 2))
    return parts


def assert_embargo(case, parts, by, ticks=0, labels=0):
    """What the split goes by is apart by more ticks, and more different labels, than these."""
    named = [case.named(case.found(part), by) for part in parts]
    place = {tick: number for number, tick in enumerate(case.different)}
    for one, other in itertools.combinations(named, 2):
        for a, b in itertools.product(one, other):
            assert abs(a - b) > ticks
            assert abs(place[a] - place[b]) > labels


@st.composite
def gaps(draw, case):
    """A gap as it is given, in ticks, and in labels."""
    if case.kind in GAPS and draw(st.booleans()):
        ticks = draw(st.integers(0, 4))
        return GAPS[case.kind](ticks), ticks, 0
    labels = draw(st.integers(0, 3))
    return labels, 0, labels


def before(different, begin, ticks, labels):
    """How many of the different labels are apart by a gap from the one at a place."""
    stop = max(0, begin - labels)
    while stop and ticks and abs(different[begin] - different[stop - 1]) <= ticks:
        stop -= 1
    return stop


@examples(9)
@given(any_case, bys, st.data())
def test_parts_that_begin_at_labels(case, by, data):
    different = case.different
    assume(len(different) > 1)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(different) - 1), min_size=1, max_size=2)))
    gap, ticks, labels = data.draw(gaps(case))
    ends = [before(different, cut, ticks, labels) for cut in cuts]
    stretches = [
        [set(different[begin:end])]
        for begin, end in zip([0, *cuts], [*ends, len(different)], strict=True)
    ]
    at = [case.label(different[cut]) for cut in cuts]
    make = lambda: xtd.split(case.samples(), case.along, at=at, gap=gap, by=by)  # noqa: E731
    parts = assert_parts(make, case, [[s for s in part if s] for part in stretches], by)
    if parts is not None:
        assert_embargo(case, parts, by, ticks, labels)


@examples(13)
@given(any_case, bys, st.data())
def test_parts_that_are_ranges_of_labels(case, by, data):
    different = case.different
    edges = sorted(data.draw(st.sets(st.integers(0, len(different)), min_size=2, max_size=8)))
    assume(len(edges) > 2)
    pieces = [piece for piece in itertools.pairwise(edges) if data.draw(st.booleans())]
    owners = [data.draw(st.integers(0, 1)) for _ in pieces]
    assume(set(owners) == {0, 1})
    gap, ticks, labels = data.draw(gaps(case))
    stretches, ranges = [[], []], [[], []]
    for place, ((begin, end), owner) in enumerate(zip(pieces, owners, strict=True)):
        ends = (different[begin], different[end - 1])
        ranges[owner].append(slice(*map(case.label, ends)))
        for (later, _), other in zip(pieces[place + 1 :], owners[place + 1 :], strict=True):
            if other != owner:
                end = min(end, before(different, later, ticks, labels))
        last = stretches[owner][-1] if stretches[owner] else [None]
        if begin < end and begin and last[-1] == different[begin - 1]:
            last += different[begin:end]
        elif begin < end:
            stretches[owner].append(different[begin:end])
    given_ = [data.draw(st.permutations(part)) for part in ranges]
    stretches = [[set(stretch) for stretch in part] for part in stretches]
    make = lambda: xtd.split(case.samples(), case.along, ranges=given_, gap=gap, by=by)  # noqa: E731
    parts = assert_parts(make, case, stretches, by)
    if parts is not None:
        assert_embargo(case, parts, by, ticks, labels)


@examples(9)
@given(any_case, bys, st.integers(2, 4), st.data())
def test_folds(case, by, n_splits, data):
    different = case.different
    assume(len(different) >= n_splits)
    gap, ticks, labels = data.draw(gaps(case))
    folds = [list(fold) for fold in np.array_split(np.arange(len(different)), n_splits)]
    made, every = None, []
    for fold in folds:
        first, last = int(fold[0]), int(fold[-1])
        behind = last + 1 + labels
        while ticks and behind < len(different):
            if abs(different[behind] - different[last]) > ticks:
                break
            behind += 1
        train = [different[: before(different, first, ticks, labels)], different[behind:]]
        test = [different[first : last + 1]]
        every.append([[set(part) for part in parts if part] for parts in (train, test)])
    try:
        made = list(xtd.kfold(case.samples(), case.along, n_splits, gap=gap, by=by))
    except ValueError as error:
        assert "has no sample" in str(error) or "where leaves none" in str(error)
        expected = [case.kept(case.allowed(part, by)) for parts in every for part in parts]
        assert not all(expected)
        return
    for parts, stretches in zip(made, every, strict=True):
        assert_parts(lambda parts=parts: parts, case, stretches, by)
        assert_embargo(case, parts, by, ticks, labels)
    tests = [case.found(test) for _, test in made]
    assert len(set().union(*tests)) == sum(map(len, tests))


@examples(9)
@given(any_case, bys, st.integers(1, 4), st.integers(0, 9), st.data())
def test_blocks_at_random(case, by, block, seed, data):
    different = case.different
    gap, ticks, labels = data.draw(gaps(case))
    try:
        parts = xtd.random_split(
            case.samples(), case.along, (0.6, 0.4), block=block, seed=seed, gap=gap, by=by
        )
    except ValueError as error:
        assert "has no sample" in str(error) or "where leaves none" in str(error)
        return
    found = [case.found(part) for part in parts]
    named = [case.named(some, by) for some in found]
    assert not named[0] & named[1]
    assert_embargo(case, parts, by, ticks, labels)
    owner = {}
    for part, ticks_ in enumerate(named):
        for tick in ticks_:
            assert owner.setdefault(different.index(tick) // block, part) == part
    if len(owner) == -(-len(different) // block) and not ticks and not labels:
        stretches = [[], []]
        for number, some in itertools.groupby(
            different, lambda tick: owner[different.index(tick) // block]
        ):
            stretches[number].append(set(some))
        assert found == [case.kept(case.allowed(part, by)) for part in stretches]


@examples(13)
@given(any_case, bys, bys, st.data())
def test_a_part_with_a_hole_is_split_again(case, outer_by, by, data):
    different = case.different
    assume(len(different) >= 4)
    fold = data.draw(st.integers(0, 2))
    try:
        outer, _ = list(xtd.kfold(case.samples(), case.along, 3, by=outer_by))[fold]
    except ValueError:
        assume(False)
    there = case.found(outer)
    cut = data.draw(st.integers(1, len(different) - 1))
    begin = case.sign * different[cut]

    def side(window):
        every = [case.sign * t if t is not None else None for t in case.ticks_of(window, False)]
        named = [
            case.sign * t if t is not None else None for t in case.ticks_of(window, by == "targets")
        ]
        if None in named:
            return None
        if all(tick is None or tick < begin for tick in every):
            return 0
        return 1 if all(tick >= begin for tick in named) else None

    expected = [{window for window in there if side(window) == part} for part in (0, 1)]
    try:
        parts = xtd.split(outer, case.along, at=case.label(different[cut]), by=by)
    except ValueError as error:
        assert "has no sample" in str(error) or "where leaves none" in str(error)
        assert not all(expected)
        return
    assert [case.found(part) for part in parts] == expected
    for part, windows in zip(parts, expected, strict=True):
        again = part.replace(preprocess=lambda block: block)
        assert case.found(again) == windows
        assert parts.left_out == len(there) - sum(map(len, expected))


@examples(9)
@given(any_case, bys, st.data())
def test_parts_of_other_windows_and_data_are_of_the_same_labels(case, by, data):
    """The data goes on before and behind; windows and targets are others."""
    case.where = None
    different = case.different
    assume(len(different) > 1)
    cut = data.draw(st.integers(1, len(different) - 1))
    try:
        parts = xtd.split(case.samples(), case.along, at=case.label(different[cut]), by=by)
    except ValueError:
        assume(False)
    some = {dim: slice(0, size - 1) for dim, size in case.ds.sizes.items() if dim in case.dims}
    ds, ticks = case.ds.isel(some), case.ticks[tuple(slice(0, -1) for _ in case.dims)]
    assume(all(size > 0 for size in ds.sizes.values()))
    input_dims, overlap, targets = {}, {}, {}
    for dim in case.input_dims:
        input_dims[dim], overlap[dim], targets[dim] = data.draw(windows_along(ds.sizes[dim]))
    other = Case(
        ds, input_dims, overlap, targets, case.along, case.kind, case.dims, ticks, case.sign
    )
    for part, own in zip(parts, (different[:cut], different[cut:]), strict=True):
        expected = other.allowed([set(own)], by)
        options = {
            "ds": ds, "input_dims": input_dims, "input_overlap": overlap,
            "targets": xtd.Select("v", targets),
        }  # fmt: skip
        if not expected:
            with pytest.raises(ValueError, match="no sample of the part"):
                part.replace(**options)
            continue
        assert other.found(part.replace(**options)) == expected


@examples(9)
@given(case_of_times, bys, st.data())
def test_what_is_shown_of_a_split(case, by, data):
    different = case.different
    assume(len(different) > 1)
    cut = data.draw(st.integers(1, len(different) - 1))
    try:
        parts = xtd.split(case.samples(), case.along, at=case.label(different[cut]), by=by)
    except ValueError:
        assume(False)
    allowed = [case.allowed([set(own)], by) for own in (different[:cut], different[cut:])]
    head, *rows = repr(parts).splitlines()
    assert f"{parts.left_out} in no part" in head or not parts.left_out
    by_where = sum(len(some) - len(case.kept(some)) for some in allowed)
    assert (f"{by_where} by where" in head) == bool(by_where)
    for row, part in zip(rows, parts, strict=True):
        ticks = case.named(case.found(part), by)
        ends = [str(case.label(end))[:10] for end in (min(ticks), max(ticks))]
        assert row.strip().startswith(f"{len(part)} samples")
        assert " to ".join(dict.fromkeys(ends[:: case.sign])) in row
        explained = xtd.IterableDataset(part).explain()
        assert explained.samples == len(part)
        lost = explained.left_out["split"] + explained.left_out["where"]
        assert lost == explained.windows - len(part)
    assert by_where == sum(xtd.IterableDataset(part).explain().left_out["where"] for part in parts)


@pytest.mark.parametrize("first_by", ["windows", "targets"])
def test_parts_with_holes_give_the_same_labels_for_targets_that_look_back_less(first_by):
    """What a part of a part has of the data does not depend on how far its windows look back."""
    ds = xr.Dataset({"v": ("time", np.arange(90.0))}, {"time": np.arange(90)})
    how = {"inputs": "v", "targets": xtd.Select("v", time=slice(6, 8))}
    samples = xtd.MapDataset(ds, {"time": 8}, {"time": 7}, **how)
    _, (train, _), _ = xtd.kfold(samples, "time", 3, by=first_by)
    part, _ = xtd.split(train, "time", at=80, by="targets")
    found = part.replace(input_dims={"time": 1}, input_overlap={}, targets="v")
    assert {int(y) for _, y in found} == {*range(30), *range(60, 80)}


def test_a_large_table_is_refused():
    """Of two dims of 20,000 each, no table is made."""
    lazy = xr.DataArray(np.broadcast_to(np.float64(1), (20_000, 20_000)), dims=("init", "lead"))
    ds = xr.Dataset({"v": lazy}).assign_coords(valid=(("init", "lead"), lazy.values))
    samples = xtd.MapDataset(ds, {"lead": 1})
    with pytest.raises(ValueError, match="20,000 × 20,000 entries, and 268,435,456 are the most"):
        xtd.split(samples, "valid", at=3)


def test_missing_labels_are_in_no_part_but_may_be_inputs_by_targets():
    storm = np.array(["a", "a", "b", "b", None, "b", "b"], dtype=object)
    ds = xr.Dataset({"v": ("time", np.arange(7.0))}).assign_coords(storm=("time", storm))
    samples = xtd.MapDataset(
        ds, {"time": 2}, {"time": 1}, inputs="v", targets=xtd.Select("v", time=1)
    )
    begins = lambda part: [part.windows[i]["time"].start for i in range(len(part))]  # noqa: E731
    first, second = xtd.split(samples, "storm", at="b")
    assert (begins(first), begins(second)) == ([0], [2, 5])
    first, second = xtd.split(samples, "storm", at="b", by="targets")
    assert (begins(first), begins(second)) == ([0], [1, 2, 4, 5])
    nothing = ds.assign_coords(storm=("time", np.full(7, np.nan)))
    with pytest.raises(ValueError, match="'storm': all are missing"):
        xtd.split(xtd.MapDataset(nothing, {"time": 2}), "storm", fractions=(0.5, 0.5))


def test_a_dim_is_planned_without_a_look_at_its_steps():
    """Of 10**12 steps, and a part of them split again."""
    big = np.lib.stride_tricks.as_strided(np.zeros(1, "f4"), (10**12,), (0,))
    samples = xtd.MapDataset(
        xr.DataArray(big, dims="time", name="v"),
        {"time": 8},
        {"time": 7},
        inputs=xtd.Select("v", time=slice(0, 7)),
        targets=xtd.Select("v", time=7),
    )
    _, (train, test), _ = xtd.kfold(samples, "time", 3, by="targets", gap=5)
    assert len(test.windows) == 333_333_333_333
    inner, _ = xtd.split(train, "time", fractions=(0.75, 0.25), by="targets")
    assert len(inner.windows) > 4 * 10**11
    # The fold has steps 333,333,333,334 to 666,666,666,666.
    assert inner.windows[333_333_333_321]["time"].stop == 333_333_333_334 - 5
    assert inner.windows[333_333_333_322]["time"].stop == 666_666_666_667 + 5 + 1
