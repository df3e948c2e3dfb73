"""Loader workers end with the process that they work for, however that ended.

A process that is killed cannot tell its workers. Torch's own look at their parent now and then, but
the parent of one that a fork server has started is that server, and one that waits for something
does not look. So a thread of each worker waits for the end of the main process.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import stat
import threading
import time
from multiprocessing import connection, resource_sharer, util
from multiprocessing.context import get_spawning_popen
from typing import Any

import torch.utils.data

from .internals import fork_server_address, fork_server_pipe

__all__ = ["Watch", "clean_up_after_fork_server", "is_there", "watch_in_worker"]

# Until what is sent to a process has been read.
_STARTING_SECONDS = 600.0
# For a worker to begin to work, after which it is known to be one, and to clean up.
_GRACE_SECONDS = 10.0
# Between two looks, where the system cannot tell of an end.
_LOOK_SECONDS = 2.0


def is_there(process: int) -> bool:
    """Whether there is a process of this number."""
    if os.name == "nt":  # where a signal of 0 would end it
        return True
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


class Watch:
    """Goes with a dataset to a process that is started; there, it begins to watch."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_begin, (None,)) if get_spawning_popen() is not None else (Watch, ())


def _begin(_: Any) -> Watch:
    """Watch over this process, if it has been started by `multiprocessing`."""
    known = multiprocessing.parent_process() is not None
    if known and not multiprocessing.current_process().daemon:  # as those are that loaders start
        return Watch()
    if _watched[-1:] != [os.getpid()]:
        _watched.append(os.getpid())
        threading.Thread(target=_watch, name="xtorch_data-orphans", daemon=True).start()
    return Watch()


def watch_in_worker() -> None:
    """Watch over this process if it is a worker of a loader: a fork is sent nothing."""
    in_process = multiprocessing.parent_process() is not None  # workers need not be processes
    if in_process and torch.utils.data.get_worker_info() is not None:
        _begin(None)


_watched: list[int] = []  # this process, in the end, if it is


def _watch() -> None:
    deadline = time.monotonic() + _STARTING_SECONDS
    while (parent := multiprocessing.parent_process()) is None:  # what is sent is still read
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    if multiprocessing.current_process().daemon:
        _end_with(parent)


def _end_with(parent: Any) -> None:
    _wait_for_end(parent)
    deadline = time.monotonic() + _GRACE_SECONDS
    while torch.utils.data.get_worker_info() is None:
        if time.monotonic() > deadline:
            return  # of another kind, whose end is not ours to decide
        time.sleep(0.05)
    # In a thread of its own: whatever it waits for, the process ends.
    cleaning = threading.Thread(target=_clean_up, daemon=True)
    cleaning.start()
    cleaning.join(_GRACE_SECONDS)
    os._exit(1)  # nothing else ends a process that waits in a read, or to send a batch to nobody


def _wait_for_end(parent: Any) -> None:
    """Wait until a process has ended, also if others have inherited its end of a pipe."""
    sentinels: list[int] = [parent.sentinel]
    timeout: float | None = _LOOK_SECONDS
    if hasattr(os, "pidfd_open"):
        try:
            sentinels.append(os.pidfd_open(parent.pid))
            timeout = None
        except ProcessLookupError:
            return
        except OSError:  # forbidden here
            pass
    while not connection.wait(sentinels, timeout):
        if not is_there(parent.pid):
            return


def _clean_up() -> None:
    """Leave no socket of this process, or of the fork server that has started it."""
    with contextlib.suppress(Exception):
        resource_sharer.stop(timeout=1.0)  # which closes its own
    with contextlib.suppress(Exception):
        _remove_sockets(util.get_temp_dir())
    with contextlib.suppress(Exception):
        os.close(fork_server_pipe())
    _remove_server_socket(0.5 * _GRACE_SECONDS)


def _remove_server_socket(seconds: float) -> None:
    """Remove the socket of a fork server, and its folder, once nothing listens there."""
    address = fork_server_address()
    if not isinstance(address, str) or not os.path.isabs(address):
        return
    deadline = time.monotonic() + seconds
    _remove_sockets(os.path.dirname(address))
    while os.path.exists(address) and time.monotonic() < deadline:
        time.sleep(0.05)
        _remove_sockets(os.path.dirname(address))


def _remove_sockets(folder: str) -> None:
    """Remove sockets at which no process listens any more, and the folder if nothing is left."""
    with contextlib.suppress(OSError):
        with open("/proc/net/unix") as file:
            bound = {line.rstrip("\n").split(maxsplit=7)[-1] for line in file}
        for entry in os.scandir(folder):
            # To connect would disturb those that are in use.
            if stat.S_ISSOCK(entry.stat().st_mode) and entry.path not in bound:
                os.unlink(entry.path)
        os.rmdir(folder)


def clean_up_after_fork_server() -> None:
    """Let this process, a fork server, remove its socket when it ends after its clients.

    A client that ends by itself has removed it before.
    """
    atexit.register(_remove_server_socket, _GRACE_SECONDS)
