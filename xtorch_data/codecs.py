"""The codec pipeline of `open_zarr`: that of zarrs, for arrays which it decodes as it should."""

from __future__ import annotations

from typing import Any

from zarr.codecs import Crc32cCodec, ShardingCodec
from zarr.registry import register_pipeline
from zarr.storage import LocalStore
from zarrs import ZarrsCodecPipeline
from zarrs.pipeline import (
    UnsupportedMetadataError,
    get_codec_pipeline_fallback,
    get_codec_pipeline_impl,
)

__all__ = ["FAST_PIPELINE", "FastCodecPipeline"]

FAST_PIPELINE = f"{__name__}.FastCodecPipeline"


class FastCodecPipeline(ZarrsCodecPipeline):
    """Chooses the pipeline of an array when it is opened; arrays have no other trace of it."""

    @classmethod
    def from_array_metadata_and_store(cls, array_metadata: Any, store: Any) -> Any:
        """The pipeline of zarrs; where that is refused, zarr takes `from_codecs`: its own.

        Raises
        ------
        NotImplementedError
            If zarrs cannot decode the array, or passes over what tells that it is damaged.
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
        if _has_checksums_in_shards(array_metadata):
            raise NotImplementedError("zarrs verifies no checksums where it reads part of a shard")
        try:  # strictly: otherwise zarrs warns, again in every process that gets the array
            impl = get_codec_pipeline_impl(array_metadata, store, strict=True)
        except UnsupportedMetadataError as error:
            raise NotImplementedError("zarrs does not know one of the codecs") from error
        fallback = get_codec_pipeline_fallback(array_metadata, strict=False)
        return ZarrsCodecPipeline(array_metadata, store, impl, fallback)


def _has_checksums_in_shards(metadata: Any) -> bool:
    return any(
        isinstance(inner, Crc32cCodec)
        for codec in getattr(metadata, "codecs", ())
        if isinstance(codec, ShardingCodec)
        for inner in codec.codecs
    )


register_pipeline(FastCodecPipeline)
