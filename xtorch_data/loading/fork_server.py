"""Imports of a fork server: this package, once for all workers, and what cleans up after it."""

from __future__ import annotations

from ..processes.orphans import clean_up_after_fork_server
from ..processes.workers import hear_interrupts_again
from . import loader  # noqa: F401

clean_up_after_fork_server()
hear_interrupts_again()
