"""Parts of batches in units: as tensors on their device, compared with the data itself."""

import numpy as np
import pytest
import torch
import xarray as xr
from devices import DEVICES

import xtorch_data as xtd

KINDS = ["std", "minmax"]
PERS = [(), "level", "time.month", ("level", "time.season")]


def data():
    rng = np.random.default_rng(0)
    time = xr.date_range("2000-01-01", periods=400)
    values = {name: (("time", "level"), 280 + 5 * rng.normal(size=(400, 3))) for name in "uv"}
    return xr.Dataset(values, {"time": time, "level": [850, 500, 250]})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per", PERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_each_part_comes_back_where_it_is(device, kind, per, dtype):
    raw = xtd.MapDataset(
        data(), {"time": 4, "level": 3}, inputs=["u", "v"], targets=xtd.Select("v", time=3)
    )
    normalize = xtd.Normalize.fit(raw, kind=kind, per=per)
    made = raw.replace(preprocess=normalize, dtype=dtype)
    numbers = [0, 7, 63]
    batch = made.fetch(numbers).to(device)
    for part in ("x", "y"):
        found = normalize.inverse(batch, part=part)
        assert found.device == batch[part].device and found.shape == batch[part].shape
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert found.data_ptr() != batch[part].data_ptr()
        rtol = {torch.float32: 1e-6, torch.float64: 1e-12, torch.bfloat16: 1e-2}[dtype]
        wanted = raw.replace(dtype=torch.float64).fetch(numbers)[part]
        torch.testing.assert_close(found.double().cpu(), wanted, rtol=rtol, atol=0)
    members = torch.stack([batch.y, 0 * batch.y], 1).requires_grad_()
    many = batch.replace(y=members, dims={"y": ("sample", "member", ...)})
    found = normalize.inverse(many, part="y")
    torch.testing.assert_close(found[:, 0], normalize.inverse(batch, part="y"))
    assert not found.requires_grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per", PERS)
def test_values_never_leave_their_device(kind, per):
    raw = xtd.MapDataset(data(), {"time": 4, "level": 3}, inputs=["u", "v"], targets="v")
    normalize = xtd.Normalize.fit(raw, kind=kind, per=per)
    batch = raw.replace(preprocess=normalize).fetch([0, 7])
    nowhere = batch.replace(x=batch.x.to("meta"), y=batch.y.to("meta"))
    for part in ("x", "y"):
        found = normalize.inverse(nowhere, part=part)
        assert found.is_meta and found.shape == batch[part].shape


def test_single_samples_and_variables_without_statistics():
    raw = xtd.IterableDataset(data(), {"time": 4, "level": 3}, inputs=["u", "v"], targets="v")
    normalize = xtd.Normalize.fit(raw, kind="minmax", per="level", variables="u")
    made = raw.replace(preprocess=normalize)
    for single, plain in zip(made, raw, strict=True):
        found = normalize.inverse(single, part="x")
        torch.testing.assert_close(found, plain.x, rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"no statistics of any of \['v'\]"):
        normalize.inverse(single, part="y")


def test_masks_are_in_no_units():
    raw = xtd.MapDataset(
        data(), {"time": 4, "level": 3}, parts={"x": "u", "there": xtd.NotNull("u")}
    )
    normalize = xtd.Normalize.fit(raw)
    with pytest.raises(TypeError, match="part 'there' has dtype bool"):
        normalize.inverse(raw.fetch([0]), part="there")
