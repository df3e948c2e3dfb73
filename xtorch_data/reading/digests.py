"""Bytes that tell values, functions and files from others, the same in every process.

For what is kept between processes. Equal bytes must mean equal things, so a function is told by its
code and by what it finds around it, not by its name alone, and a file by when it was written, too.
What cannot be told surely is an error. Credentials are left out: they are no part of what is read.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from dask.base import tokenize

from ..sources.file_stamps import Unidentified, file_stamp

__all__ = ["Unidentified", "digest", "file_system", "public", "token"]

# Options of file systems and object stores that say who asks, or how, not for what.
ASIDE = frozenset(
    "key secret token username password user access_key_id secret_access_key session_token "
    "access_key_secret account_key sas_token sas_key credential credentials bearer_token client_id "
    "client_secret connection_string service_account service_account_key service_account_path "
    "application_credentials profile anon skip_signature requester_pays "
    "asynchronous loop skip_instance_cache use_listings_cache listings_expiry_time max_paths "
    "default_block_size default_cache_type default_fill_cache max_concurrency batch_size "
    "headers config_kwargs retry_config timeout connect_timeout".split()
)
# Modules whose functions are told by name and version.
VERSIONED = frozenset({"builtins", "numpy", "xarray", "dask", "zarr", "numcodecs", "pandas"})


def digest(what: Any) -> bytes:
    """A digest of a value.

    Raises Unidentified if there is something in it that has no token.
    """
    found = hashlib.blake2b(digest_size=20)
    for piece in _pieces(what, ()):
        found.update(len(piece).to_bytes(8, "little"))
        found.update(piece)
    return found.digest()


def _pieces(what: Any, inside: tuple[int, ...]) -> Iterator[bytes]:
    """Bytes that are the same for equal values, and only for these, in every process.

    `inside` are the functions in which it was found, which may refer to themselves.
    """
    kind = type(what)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if what is None or kind in (bool, int, float, complex, str, types.EllipsisType):
        yield repr(what).encode(errors="surrogatepass")
    elif kind in (bytes, bytearray):
        yield bytes(what)
    elif isinstance(what, np.dtype):
        yield repr((what, what.metadata)).encode()
    elif isinstance(what, np.generic):
        yield from _pieces(np.asarray(what), inside)
    elif isinstance(what, np.ndarray):
        yield repr((what.dtype, what.shape)).encode()
        if what.dtype.hasobject:
            yield from _all(what.ravel().tolist(), inside)
        else:
            yield np.ascontiguousarray(what).tobytes()
    elif isinstance(what, (slice, range)):
        yield from _all((what.start, what.stop, what.step), inside)
    elif isinstance(what, enum.Enum):
        yield what.name.encode()
    elif isinstance(what, Mapping):
        entries = [(list(_pieces(key, inside)), value) for key, value in what.items()]
        for key, value in sorted(entries, key=lambda entry: entry[0]):
            yield from key
            yield from _pieces(value, inside)
        yield b"end"
    elif isinstance(what, (set, frozenset)):
        yield from _all(sorted(digest(each) for each in what), inside)
    elif isinstance(what, (tuple, list)):
        yield from _all(what, inside)
    elif isinstance(what, os.PathLike):
        yield os.fspath(what).encode() if isinstance(os.fspath(what), str) else os.fspath(what)
    elif isinstance(what, functools.partial):
        yield from _all((what.func, what.args, what.keywords), inside)
    elif isinstance(what, types.ModuleType):
        yield repr((what.__name__, getattr(what, "__version__", None))).encode()
    elif isinstance(what, types.FunctionType):
        yield from _of_function(what, inside)
    elif isinstance(what, types.MethodType):
        yield from _all((what.__func__, what.__self__), inside)
    elif isinstance(what, type) or callable(what) and hasattr(what, "__qualname__"):
        yield from _of_named(what)
    elif hasattr(what, "__fspath__"):
        yield os.fspath(what).encode()
    elif is_file_system(what):
        yield from _pieces(file_system(what), inside)
    else:
        yield token(what)


def _all(items: Iterable[Any], inside: tuple[int, ...]) -> Iterator[bytes]:
    for item in items:
        yield from _pieces(item, inside)
    yield b"end"


def _of_named(what: Any) -> Iterator[bytes]:
    """A class or a function without Python code; of a class of the user, what is in it."""
    module = str(getattr(what, "__module__", None))
    yield f"{module}.{what.__qualname__}".encode()
    if isinstance(what, type) and not _is_versioned(module):
        yield token(what)


def token(what: Any) -> bytes:
    """Dask's token of an object, if that is the same in every process."""
    try:
        return str(tokenize(what, ensure_deterministic=True)).encode()
    except Exception as error:
        raise Unidentified(
            f"{type(what).__module__}.{type(what).__qualname__} cannot be told from others of its "
            "kind: give it a method __dask_tokenize__"
        ) from error


def _is_versioned(module: str) -> bool:
    return module.partition(".")[0] in VERSIONED


def _of_function(function: types.FunctionType, inside: tuple[int, ...]) -> Iterator[bytes]:
    """A function: its code, and what it finds around it, so that an edit makes another of it."""
    yield f"{function.__module__}.{function.__qualname__}".encode()
    if _is_versioned(function.__module__) or id(function) in inside:
        return
    inside = (*inside, id(function))
    yield from _of_code(function.__code__, inside)
    yield from _all((function.__defaults__, function.__kwdefaults__), inside)
    for cell in function.__closure__ or ():
        try:
            yield from _pieces(cell.cell_contents, inside)
        except ValueError as error:
            if isinstance(error, Unidentified):
                raise
            yield b"empty"
    for name in sorted(_names_in(function.__code__)):
        if name in function.__globals__:
            yield name.encode()
            yield from _pieces(function.__globals__[name], inside)


def _of_code(code: types.CodeType, inside: tuple[int, ...]) -> Iterator[bytes]:
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags)).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _of_code(constant, inside)
        else:
            yield from _pieces(constant, inside)
    yield b"end"


def _names_in(code: types.CodeType) -> set[str]:
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return set(code.co_names).union(*map(_names_in, inner))


def is_file_system(what: Any) -> bool:
    return hasattr(what, "storage_options") and hasattr(what, "protocol")


def file_system(fs: Any) -> Any:
    """A file system of fsspec: its class and options, but not who asks."""
    options = public(fs.storage_options)
    kind = f"{type(fs).__module__}.{type(fs).__qualname__}"
    if kind.endswith(".MemoryFileSystem"):
        raise Unidentified("a file system in memory has nothing to gain from a cache on disk")
    name = "fo"  # codespell:ignore
    references = options.get(name)
    if isinstance(references, str) and "://" not in references:
        options[name] = file_stamp(
            os.path.join(references, ".zmetadata") if os.path.isdir(references) else references
        )
    elif isinstance(references, str):
        options[name] = getattr(fs, "references", references)
    inner = getattr(fs, "fs", None)
    return kind, fs.storage_args, options, file_system(inner) if is_file_system(inner) else 0


def public(options: Mapping[Any, Any]) -> dict[str, Any]:
    """Options of a store but those that say who asks, or how."""
    return {str(name): value for name, value in options.items() if str(name) not in ASIDE}
