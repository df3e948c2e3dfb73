"""What a fork server imports: this package, once for all workers, and what cleans up after it."""

from __future__ import annotations

from . import loader  # noqa: F401
from .orphans import clean_up_after_fork_server
from .workers import hear_interrupts_again

clean_up_after_fork_server()
hear_interrupts_again()
