"""Errors that an event loop or a future would not pass on."""

import numpy as np
import xarray as xr
from helpers import in_a_process


def test_whoever_waits_gets_errors_that_end_loops_and_programs(tmp_path):
    path = tmp_path / "a.zarr"
    data = xr.Dataset({"a": ("time", np.arange(400.0))})
    data.to_zarr(path, encoding={"a": {"chunks": (10,)}}, consolidated=False)
    done = in_a_process(
        """
        import sys
        import xarray as xr
        import zarr
        import xtorch_data as xtd

        def failing(kind):
            calls = []
            def function(data):
                calls.append(data)
                if len(calls) > 4:
                    raise kind
                return data
            return function

        class Store(zarr.storage.WrapperStore):
            gets = 0
            async def get(self, key, *args, **kwargs):
                if "/c/" in key:
                    self.gets += 1
                    if self.gets > 4:
                        raise self.kind
                return await super().get(key, *args, **kwargs)

        def opened(kind=None, **how):
            store = zarr.storage.LocalStore(sys.argv[1], read_only=True)
            if kind is not None:
                store = Store(store)
                store.kind = kind
            return xr.open_zarr(store, consolidated=False, **how)

        def stream(data, **how):
            list(xtd.IterableDataset(data, {"time": 5}, memory="1 kB", batch_size=4, **how))

        def by_number(data, **how):
            samples = xtd.MapDataset(data, {"time": 5}, memory="1 kB", **how)
            [samples[number] for number in range(len(samples))]

        def of_dask(kind):
            values = opened(chunks={}).a
            made = values.data.map_blocks(failing(kind), meta=values.data)
            return values.copy(data=made).to_dataset()

        for kind in (StopIteration, SystemExit, KeyboardInterrupt):
            for call in (
                lambda: stream(opened(chunks=None), preprocess=failing(kind)),
                lambda: by_number(opened(chunks=None), preprocess=failing(kind)),
                lambda: stream(of_dask(kind)),
                lambda: stream(opened(kind, chunks=None)),
                lambda: by_number(opened(kind, chunks=None)),
            ):
                try:
                    call()
                except BaseException as error:
                    print(type(error).__name__, end=" ", flush=True)
            print()
        """,
        path,
    )
    stop, *others = [line.split() for line in done.stdout.splitlines()]
    assert len(stop) == 5 and set(stop) <= {"RuntimeError", "ReadError"}, done.stderr
    assert others == [["SystemExit"] * 5, ["KeyboardInterrupt"] * 5], done.stderr
