"""Private names of torch and Python, for processes and threads.

They are used here, and nowhere else in the package. The table of these names
(docs/explanation/design.md) says when each can go.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from typing import Any

from torch.utils.data._utils.collate import default_collate_fn_map

__all__ = [
    "before_threads_are_awaited", "collate_with", "end_workers_of", "fork_server_address",
    "fork_server_pipe", "is_fork", "let_nobody_await", "workers_of",
]  # fmt: skip


def collate_with(kind: type, collate: Callable[..., Any]) -> None:
    """Teach torch's `default_collate` a type; its documentation names the place."""
    default_collate_fn_map[kind] = collate


def workers_of(batches: Any) -> Sequence[Any]:
    """The processes of an iterator of torch's loader."""
    return batches._workers  # type: ignore[no-any-return]


def end_workers_of(batches: Any) -> None:
    """End the workers of an iterator of torch's loader, as its deletion would."""
    batches._shutdown_workers()


def is_fork(process: Any) -> bool:
    """Whether a process of `multiprocessing` is started as a fork."""
    return bool(process._start_method == "fork")


# The fork server ends when the last process has closed its end of a pipe. There are no public names
# for that pipe and for its socket, which nobody else removes.


def fork_server_pipe() -> Any:
    """The end, here, of the pipe that keeps the fork server alive; None if there is none."""
    return getattr(forkserver._forkserver, "_forkserver_alive_fd", None)


def fork_server_address() -> Any:
    """The path at which the fork server listens; anything else if there is none."""
    return getattr(forkserver._forkserver, "_forkserver_address", None)


def before_threads_are_awaited(function: Callable[[], None]) -> None:
    """Call a function as the interpreter ends, before executors wait for their threads."""
    getattr(threading, "_register_atexit", atexit.register)(function)


def let_nobody_await(thread: threading.Thread) -> None:
    """Let the interpreter not wait for a thread of an executor when it ends."""
    getattr(concurrent.futures.thread, "_threads_queues", {}).pop(thread, None)
