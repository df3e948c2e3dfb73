"""The codec pipeline of `open_zarr`: that of zarrs, for arrays which it decodes as it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import zarr
from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.registry import register_pipeline
from zarr.storage import LocalStore
from zarrs import ZarrsCodecPipeline
from zarrs.pipeline import (
    UnsupportedMetadataError,
    get_codec_pipeline_fallback,
    get_codec_pipeline_impl,
)

__all__ = ["FAST_PIPELINE", "FastCodecPipeline", "is_decoded_fast"]

FAST_PIPELINE = f"{__name__}.FastCodecPipeline"

# Names of codecs that do nothing but tell damage; those of numcodecs have a prefix in Zarr v3.
CHECKSUMS = frozenset({"crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3"})


class FastCodecPipeline(ZarrsCodecPipeline):
    """Chooses the pipeline of an array when it is opened; arrays have no other trace of it."""

    @classmethod
    def from_array_metadata_and_store(cls, array_metadata: Any, store: Any) -> Any:
        """The pipeline of zarrs; where that is refused, zarr takes `from_codecs`: its own.

        Raises NotImplementedError if zarrs cannot decode the array, or passes over what tells that
        it is damaged.
        """
        if not isinstance(store, LocalStore):
            raise NotImplementedError(
                "zarrs would ask a server by a client of its own, without the headers of this one, "
                "and wait for its answers for ever"
            )
        dtype = array_metadata.dtype.to_native_dtype()
        if dtype.kind not in "biufc":  # it would warn that their names in Zarr v3 may change
            raise NotImplementedError("texts and times are few, and gain nothing from zarrs")
        if not dtype.isnative:
            raise NotImplementedError("zarrs does not read other byte orders of Zarr v2")
        if _order(array_metadata) != "C":
            raise NotImplementedError("zarrs writes to memory in C order alone")
        if _has_checksums_in_shards(getattr(array_metadata, "codecs", ())):
            raise NotImplementedError("zarrs verifies no checksums where it reads part of a shard")
        if _has_unverified_index(getattr(array_metadata, "codecs", ())):
            raise NotImplementedError(
                "zarrs takes the index of a shard for granted: a wrong one ends the process"
            )
        try:  # strictly: otherwise zarrs warns, again in every process that gets the array
            impl = get_codec_pipeline_impl(array_metadata, store, strict=True)
        except UnsupportedMetadataError as error:
            raise NotImplementedError("zarrs does not know one of the codecs") from error
        except UnicodeEncodeError as error:  # of a path that holds bytes which are no text
            raise NotImplementedError("zarrs takes the path of a store as text") from error
        fallback = get_codec_pipeline_fallback(array_metadata, strict=False)
        return ZarrsCodecPipeline(array_metadata, store, impl, fallback)


def is_decoded_fast(array: Any) -> bool:
    """Whether a Zarr array has the pipeline of zarrs if it is opened with the fast one."""
    try:
        FastCodecPipeline.from_array_metadata_and_store(array.metadata, array.store)
    except NotImplementedError:
        return False
    return True


def _order(metadata: Any) -> str:
    """The order in which zarr allots memory for what is read of an array."""
    own = metadata.order if metadata.zarr_format == 2 else zarr.config.get("array.order", "C")
    return str(own)


def _has_checksums_in_shards(codecs: Sequence[Any], inside: bool = False) -> bool:
    return any(
        _has_checksums_in_shards(codec.codecs, inside=True)
        if isinstance(codec, ShardingCodec)
        else inside and codec.to_dict()["name"].removeprefix("numcodecs.") in CHECKSUMS
        for codec in codecs
    )


def _has_unverified_index(codecs: Sequence[Any]) -> bool:
    """Whether some shards have an index without a checksum."""
    return any(
        isinstance(codec, ShardingCodec)
        and (
            not any(isinstance(each, Crc32cCodec) for each in codec.index_codecs)
            or _has_unverified_index(codec.codecs)
        )
        for codec in codecs
    )


register_pipeline(FastCodecPipeline)
