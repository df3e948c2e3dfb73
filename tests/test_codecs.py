import pickle
import warnings

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
import zarr.codecs

import xtorch_data as xtd
from xtorch_data.lazy import codec_pipeline

CRC = [zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()]


@pytest.mark.parametrize(
    ("zarr_format", "encoding", "fast"),
    [
        (3, {}, True),
        (3, {"compressors": CRC}, True),  # verified, as chunks are decoded whole
        (3, {"shards": (20,)}, True),
        (3, {"shards": (20,), "compressors": CRC}, False),
        (3, {"serializer": zarr.codecs.BytesCodec(endian="big")}, True),
        (2, {}, True),
        (2, {"dtype": ">f4"}, False),
    ],
)
def test_zarrs_decodes_what_it_decodes_as_it_should(tmp_path, zarr_format, encoding, fast):
    ds = xr.Dataset({"a": ("x", np.arange(40, dtype=encoding.pop("dtype", "f4")))})
    encoding = {"a": {"chunks": (10,), **encoding}}
    ds.to_zarr(tmp_path / "a", zarr_format=zarr_format, consolidated=False, encoding=encoding)
    opened = xtd.open_zarr(tmp_path / "a", consolidated=False)
    for lazy in (opened, pickle.loads(pickle.dumps(opened))):
        assert codec_pipeline(lazy["a"].variable).startswith("zarrs.") == fast
        np.testing.assert_array_equal(lazy["a"].isel(x=slice(3, 27)).values, np.arange(3, 27))
    assert "zarrs" not in zarr.config.get("codec_pipeline.path")


@pytest.mark.filterwarnings("ignore:The data type.*Zarr V3 specification")  # when it is written
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("names", [["a", "bc"], [b"a", b"bc"]])
def test_what_zarrs_cannot_decode_opens_and_is_sent_elsewhere_in_silence(
    tmp_path, zarr_format, names
):
    ds = xr.Dataset({"a": ("x", [1.0, 2.0])}, coords={"station": ("x", names)})
    encoding = {"a": {"filters": [numcodecs.Delta("f8")]}} if zarr_format == 2 else {}
    ds.to_zarr(tmp_path / "a", zarr_format=zarr_format, consolidated=False, encoding=encoding)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xtd.open_zarr(tmp_path / "a", consolidated=False)
        sent = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(sent["station"].values, names)
    np.testing.assert_array_equal(sent["a"].values, [1.0, 2.0])
