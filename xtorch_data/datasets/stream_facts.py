"""What a stream says of how its epochs go, as text and on its page."""

from __future__ import annotations

from typing import Any

from ..common.text import format_bytes, number_of
from ..planning.plan import Plan
from ..samples.facts import described

__all__ = ["batches_of", "facts_of_stream", "text_of_stream"]


def text_of_stream(dataset: Any) -> str:
    """The repr of an `IterableDataset`."""
    definition = dataset._inside.definition
    return (
        f"<xtorch_data.IterableDataset {dataset.windows!r}{dataset._left_out}\n"
        f"  {described(definition)}\n"
        + "".join(f"  {line}\n" for line in dataset._uncovered)
        + f"  {batches_of(dataset)}, from {definition.origin}>"
    )


def batches_of(dataset: Any) -> str:
    """Batches of an `IterableDataset` and their order, in a few words."""
    plan = dataset.plan
    size = plan.batch_size
    batches = "samples one at a time" if size is None else f"batches of {size:,}"
    batches += "".join(f", epochs of {samples}" for _, samples in _epoch_facts(plan))
    return f"{batches}, {_order_of(plan)}"


def _order_of(plan: Any) -> str:
    if plan.weights is None and not plan.shuffle:
        return "in order"
    how = "shuffled" if plan.weights is None else "drawn by weights"
    return f"{how} with seed {plan.seed}"


def facts_of_stream(dataset: Any) -> list[tuple[str, Any]]:
    """Facts of an `IterableDataset`, beside those of its samples, for its page."""
    plan, size = dataset.plan, dataset.batch_size
    drawn = _order_of(plan)
    if dataset.shuffle:
        drawn += f"; the next epoch is {dataset.epoch}"
    if size is None:
        batches = f"{number_of(len(dataset), 'sample')}, one at a time"
    else:
        batches = f"{len(dataset):,} of {number_of(size, 'sample')}"
    outside = dataset._inside.what.outside
    by_where = plan.left_out - outside
    left_out = f", {outside:,} left out by the split" if outside else ""
    left_out += f", {by_where:,} left out by where" if by_where else ""
    return [
        ("samples", f"{plan.there:,} of {len(plan.windows):,}{left_out}"),
        *_epoch_facts(plan),
        ("batches", f"{batches}, on rank {dataset.rank} of {dataset.world_size}"),
        ("order", drawn),
        ("uneven", f"{plan.uneven}{', drop_last' * plan.drop_last}"),
        ("memory", format_bytes(plan.memory) + ", decoded blocks are kept" * plan.cached),
        (
            "errors",
            f"{dataset.on_error}, after {number_of(dataset.retries, 'more try', 'more tries')}",
        ),
    ]


def _epoch_facts(plan: Plan) -> list[tuple[str, str]]:
    """How many samples an epoch has, if that was asked for."""
    if plan.epoch_size is None:
        return []
    return [("epoch", number_of(plan.epoch_size, "sample"))]
