import pickle
import warnings

import numcodecs
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
import zarr.codecs
from zarr.registry import get_codec_class

import xtorch_data as xtd
from xtorch_data.reading.recycled import codec_pipeline

CRC = [zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()]
NESTED = zarr.codecs.ShardingCodec(
    chunk_shape=(10,),
    codecs=[zarr.codecs.ShardingCodec(chunk_shape=(5,), codecs=[zarr.codecs.BytesCodec(), *CRC])],
)
UNVERIFIED = zarr.codecs.ShardingCodec(
    chunk_shape=(10,),
    codecs=[zarr.codecs.BytesCodec(endian="big")],
    index_codecs=[zarr.codecs.BytesCodec()],
)
WITHIN = zarr.codecs.ShardingCodec(chunk_shape=(20,), codecs=[UNVERIFIED])


@pytest.mark.parametrize(
    ("zarr_format", "encoding", "fast"),
    [
        (3, {}, True),
        (3, {"compressors": CRC}, True),  # verified, as chunks are decoded whole
        (3, {"shards": (20,)}, True),
        (3, {"shards": (20,), "compressors": CRC}, False),
        (3, {"chunks": (20,), "compressors": None, "serializer": NESTED}, False),
        (3, {"chunks": (20,), "compressors": None, "serializer": UNVERIFIED}, False),
        (3, {"chunks": (40,), "compressors": None, "serializer": WITHIN}, False),
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


def of_numcodecs(name, **config):
    """A codec of numcodecs for Zarr v3."""
    with warnings.catch_warnings():  # that it is in no specification
        warnings.simplefilter("ignore")
        return get_codec_class(f"numcodecs.{name}")(**config)


Bytes, Shards, Zstd = zarr.codecs.BytesCodec, zarr.codecs.ShardingCodec, zarr.codecs.ZstdCodec
TRANSPOSED = {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]}


def shards(*codecs, index=None, around=None, inner=(7, 4)):
    """Encoding of an array in shards of 14 × 8, with codecs around these."""
    index = {} if index is None else {"index_codecs": index}
    sharding = Shards(chunk_shape=inner, codecs=list(codecs), **index)
    return {"chunks": (14, 8), "compressors": around, "serializer": sharding}


# How arrays are stored: their dtype, and arguments of zarr.create and create_array.
V2 = {
    **{dtype: (dtype, {}) for dtype in ["i1", "u8", "f2", "?", "c8", "c16", ">f4", ">i2"]},
    "F": ("f4", {"order": "F"}),
    "F, not compressed": ("i2", {"order": "F", "compressor": None}),
    "F, big-endian": (">f8", {"order": "F"}),
    "F, filtered": ("i4", {"order": "F", "filters": [numcodecs.Delta("i4")]}),
    "differences": ("i4", {"filters": [numcodecs.Delta("i4", astype="i2")]}),
    "offset": ("f4", {"filters": [numcodecs.FixedScaleOffset(1, 10, dtype="f4", astype="u2")]}),
    "bits": ("?", {"filters": [numcodecs.PackBits()]}),
    "digits": ("f4", {"filters": [numcodecs.Quantize(2, dtype="f4")]}),
    "rounded": ("f4", {"filters": [numcodecs.BitRound(5)]}),
    "cast": ("f8", {"filters": [numcodecs.AsType("f4", "f8")]}),
    "shuffled": ("f4", {"filters": [numcodecs.Shuffle(4)], "compressor": numcodecs.Zlib()}),
    "shuffled by 2": ("f4", {"filters": [numcodecs.Shuffle(2)], "compressor": numcodecs.Zlib()}),
    "checked": ("f4", {"filters": [numcodecs.CRC32()]}),
    "checked last": ("f4", {"compressor": numcodecs.Adler32()}),
    "fletcher": ("f4", {"filters": [numcodecs.Fletcher32()]}),
    "bz2": ("f4", {"compressor": numcodecs.BZ2()}),
    "lzma": ("f4", {"compressor": numcodecs.LZMA()}),
    "bitshuffle": ("f4", {"compressor": numcodecs.Blosc(shuffle=2)}),
    "no fill value": ("f4", {"fill_value": None}),
    "keys with /": ("f4", {"dimension_separator": "/"}),
    "dates": ("M8[s]", {}),
    "durations": ("m8[h]", {}),
    "bytes": ("S5", {}),
    "text": ("U5", {}),
}
V3 = {
    **{dtype: (dtype, {}) for dtype in ["i1", "u8", "f2", "?", "c8", "c16"]},
    "big-endian": ("f4", {"serializer": Bytes(endian="big")}),
    "transposed": ("f4", TRANSPOSED),
    "two": ("f4", {"compressors": [Zstd(), zarr.codecs.GzipCodec()]}),
    "crc": ("f4", {"compressors": [zarr.codecs.Crc32cCodec()]}),
    "with checksums": ("f4", {"compressors": [Zstd(checksum=True)]}),
    "keys of v2": ("f4", {"chunk_key_encoding": {"name": "v2", "separator": "."}}),
    "keys with .": ("f4", {"chunk_key_encoding": {"name": "default", "separator": "."}}),
    "differences": ("i4", {"filters": [of_numcodecs("delta", dtype="int32")]}),
    "bits": ("?", {"filters": [of_numcodecs("packbits")]}),
    "digits": ("f4", {"filters": [of_numcodecs("quantize", digits=2, dtype="f4")]}),
    "rounded": ("f4", {"filters": [of_numcodecs("bitround", keepbits=5)]}),
    "cast": ("f8", {"filters": [of_numcodecs("astype", encode_dtype="f4", decode_dtype="f8")]}),
    "shuffled": (
        "f4",
        {"compressors": [of_numcodecs("shuffle", elementsize=4), of_numcodecs("zlib")]},
    ),
    **{
        name: ("f4", {"compressors": [of_numcodecs(name)]})
        for name in ["lz4", "bz2", "lzma", "crc32", "adler32", "fletcher32", "jenkins_lookup3"]
    },
    "shards": ("f4", shards(Bytes(), Zstd())),
    "shards, transposed": ("f4", {"shards": (14, 8), **TRANSPOSED}),
    "shards, big-endian": ("f4", shards(Bytes(endian="big"))),
    "shards, checked": ("f4", shards(Bytes(), of_numcodecs("crc32"))),
    "shards, index bare": ("f4", shards(Bytes(), index=[Bytes()])),
    "shards, index first": ("f4", {"shards": {"shape": (14, 8), "index_location": "start"}}),
    "shards in shards": ("f4", shards(Shards(chunk_shape=(7, 2), codecs=[Bytes(), *CRC]))),
    "shards, compressed": ("f4", shards(Bytes(), around=[zarr.codecs.GzipCodec()])),
    "shards, missing": ("f4 missing", {"shards": (14, 8), "fill_value": 7}),
    "missing": ("f4 missing", {"fill_value": np.nan}),
    "dates": ("M8[s]", {}),
    "bytes": ("S5", {}),
    "text": ("U5", {}),
}


def written(path, zarr_format):
    """A store of them all, and of arrays with one dim and none."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    whole = np.arange(1, 181).reshape(30, 6)
    for name, (kind, encoding) in (V2 if zarr_format == 2 else V3).items():
        dtype, _, missing = kind.partition(" ")
        dtype = np.dtype(dtype)
        values = whole % 2 if dtype.kind == "b" else whole % 100 if dtype.itemsize == 1 else whole
        for end, few in {"": values, " 1": values[:, 0], " 0": values[0, 0]}.items():
            if end and name not in ("?", "c8", "F", "big-endian"):
                continue
            dims = ["time", "x"][: few.ndim]
            own = {"chunks": (7, 4)[: few.ndim], **encoding}
            if zarr_format == 2:
                own["attributes"] = {"_ARRAY_DIMENSIONS": dims}
                own.setdefault("dimension_separator", ".")
                store = zarr.storage.LocalStore(path / f"{name}{end}".replace("/", "-"))
                made = zarr.create(store=store, shape=few.shape, dtype=dtype, zarr_format=2, **own)
            else:
                made = group.create_array(
                    f"{name}{end}", shape=few.shape, dtype=dtype, dimension_names=dims, **own
                )
            if not missing:
                made[...] = few.astype(dtype)


@pytest.mark.filterwarnings("ignore:(The data type|Data type|Codec|Numcodecs)")  # of the writer
@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize(("zarr_format", "order"), [(2, "C"), (3, "C"), (3, "F")])
def test_whatever_zarr_can_decode_reads_as_through_xarray(tmp_path, zarr_format, order):
    written(tmp_path / "a", zarr_format)
    truth = xr.open_zarr(tmp_path / "a", consolidated=False, chunks=None, mask_and_scale=False)
    truth = truth.load()
    steps = {"time": slice(1, None, 2), "x": slice(None, None, -1)}
    with zarr.config.set({"array.order": order}):
        for opener in (xtd.open_zarr, xr.open_zarr):
            ds = opener(tmp_path / "a", consolidated=False, chunks=None, mask_and_scale=False)
            for part, expected in ((ds, truth), (ds.isel(steps), truth.isel(steps))):
                names = [name for name in part if truth[name].dtype.kind in "biufc"]
                dataset = xtd.IterableDataset(
                    part,
                    {"time": 4, "x": -1},
                    parts={f"p{place}": name for place, name in enumerate(names)},
                    batch_size=2,
                    dtype=torch.float64,
                )
                for batch in dataset:
                    for row, number in enumerate(batch.index.tolist()):
                        sample = expected.isel(dataset.windows[number])
                        for place, name in enumerate(names):
                            found = batch[f"p{place}"][row].numpy()
                            wanted = sample[name].variable.set_dims(sample.sizes).values
                            np.testing.assert_array_equal(found, wanted, err_msg=f"{name!r}")
            for name in truth:
                np.testing.assert_array_equal(ds[name].values, truth[name].values, name)


def test_nobody_is_sent_to_a_pipeline_that_does_not_take_the_array(tmp_path):
    group = zarr.open_group(tmp_path / "3", mode="w", zarr_format=3)
    group.create_array(
        "v", shape=(30,), dtype="f4", dimension_names=["time"], serializer=Bytes(endian="big")
    )
    zarr.open_group(tmp_path / "2", mode="w", zarr_format=2)
    zarr.create(
        store=zarr.storage.LocalStore(tmp_path / "2" / "v"),
        shape=(30,),
        dtype="f4",
        order="F",
        zarr_format=2,
        attributes={"_ARRAY_DIMENSIONS": ["time"]},
    )
    for name in "23":
        ds = xr.open_zarr(tmp_path / name, consolidated=False, chunks=None)
        advice = str(xtd.IterableDataset(ds, {"time": 4}).explain())
        assert ("opened by xtorch_data.open_zarr" in advice) == (name == "3")


RECTILINEAR = "rectilinear chunk grids came with zarr 3.3"


@pytest.mark.skipif("array.rectilinear_chunks" not in zarr.config, reason=RECTILINEAR)
@pytest.mark.parametrize("sharded", [False, True])
def test_chunks_of_a_rectilinear_grid_are_known_and_read_once(tmp_path, sharded):
    values = np.arange(180, dtype="f4").reshape(30, 6)
    grid = {"chunks": (2, 2), "shards": [[10, 14, 6], [4, 2]]} if sharded else {}
    with zarr.config.set({"array.rectilinear_chunks": True}):
        group = zarr.open_group(tmp_path / "a", mode="w")
        array = group.create_array(
            "v",
            shape=values.shape,
            dtype="f4",
            dimension_names=["time", "x"],
            **(grid or {"chunks": [[7, 10, 13], [4, 2]]}),
        )
        array[...] = values
        for data in (
            xtd.open_zarr(tmp_path / "a", consolidated=False),
            xr.open_zarr(tmp_path / "a", consolidated=False, chunks=None),
            array,
            group,
        ):
            dataset = xtd.IterableDataset(data, {"time": 4, "x": -1}, {"time": 3}, memory="200 B")
            found = np.concatenate([batch.x.numpy().reshape(-1, 4, 6) for batch in dataset])
            truth = np.lib.stride_tricks.sliding_window_view(values, 4, 0).swapaxes(1, 2)
            np.testing.assert_array_equal(found, truth)
            if not sharded:
                [layout] = dataset.plan.layouts
                assert layout.chunks["time"].edges.tolist() == [0, 7, 17, 30]
        for shift in (0, 1):  # written anew in place, it is not taken from the cache
            array[25:, 5:] = values[25:, 5:] + shift
            ds = xtd.open_zarr(tmp_path / "a", consolidated=False)
            kept = xtd.IterableDataset(ds, {"time": 30, "x": -1}, cache=str(tmp_path / "kept"))
            [batch] = kept
            np.testing.assert_array_equal(batch.x.numpy().reshape(30, 6), array[...])
