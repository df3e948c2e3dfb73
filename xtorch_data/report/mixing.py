"""Pools of blocks that are shuffled together, and how well that mixes batches."""

from __future__ import annotations

from ..planning.plan import Plan

__all__ = ["mixing_of", "pool_blocks", "pools_of"]


def pool_blocks(plan: Plan) -> int:
    """Blocks of a pool; 1 where nothing is shuffled."""
    return min(plan.pool_blocks, plan.filled_blocks[0]) if plan.shuffle else 1


def pools_of(plan: Plan) -> int:
    """Pools of an epoch."""
    return -(-plan.filled_blocks[0] // pool_blocks(plan))


def mixing_of(plan: Plan) -> float:
    """How well batches are mixed: see `Explanation.mixing`."""
    if not plan.shuffle:
        return 0.0
    (blocks, sizes), together = plan.filled_blocks, pool_blocks(plan)
    if together == blocks:
        return 1.0
    alike = float((sizes**2).mean() / sizes.mean() ** 2)  # 1 where all are equal
    rest = blocks % together  # in the last pool
    same = alike * ((blocks - rest) / together + (rest > 0)) / blocks
    return max(0.0, (1 - same) / (1 - alike / blocks))
