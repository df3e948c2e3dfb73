"""Whether a store is still there: metadata is taken away from it, or it refuses to be asked."""

import asyncio
import shutil

import numpy as np
import pytest
import zarr

from xtorch_data.reading.chunk_errors import require_array, require_local_array


def array_in(store, name="v", zarr_format=3):
    zarr.open_group(store, mode="a", zarr_format=zarr_format)
    return zarr.create_array(
        store, name=name, data=np.zeros(4), chunks=(2,), zarr_format=zarr_format
    )


class Failing(zarr.storage.WrapperStore):
    """Fails whenever metadata is asked for, once `error` is set."""

    error = None

    async def get(self, *args, **kwargs):
        if Failing.error is not None:
            raise Failing.error
        return await super().get(*args, **kwargs)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_folder_that_is_gone_is_an_error_that_names_it(tmp_path, zarr_format):
    array = array_in(tmp_path / "a.zarr", zarr_format=zarr_format)
    require_local_array(array)
    asyncio.run(require_array(array))
    own, root = {2: (".zarray", ".zmetadata"), 3: ("zarr.json", "zarr.json")}[zarr_format]
    (tmp_path / "a.zarr" / "v" / own).unlink()
    (tmp_path / "a.zarr" / root).touch()
    require_local_array(array)  # what is consolidated stands for it
    shutil.rmtree(tmp_path / "a.zarr")
    with pytest.raises(FileNotFoundError, match=r"a\.zarr are missing, and so is v/"):
        require_local_array(array)
    with pytest.raises(FileNotFoundError, match="not there any more"):
        asyncio.run(require_array(array))


def test_a_store_in_memory_may_be_emptied():
    store = zarr.storage.MemoryStore()
    array = array_in(store)
    asyncio.run(require_array(array))
    store._store_dict.clear()
    with pytest.raises(FileNotFoundError, match="v/zarr.json"):
        asyncio.run(require_array(array))


@pytest.mark.parametrize(
    ("error", "believed"),
    [(PermissionError("no"), True), (NotImplementedError(), True), (ValueError("broken"), False)],
)
def test_a_store_that_may_not_be_asked_is_believed(error, believed, monkeypatch):
    array = array_in(Failing(zarr.storage.MemoryStore()))
    monkeypatch.setattr(Failing, "error", error)
    if believed:
        asyncio.run(require_array(array))
    else:
        with pytest.raises(ValueError, match="broken"):
            asyncio.run(require_array(array))
