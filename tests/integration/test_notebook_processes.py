"""What a real notebook keeps of proofs and bars when it is saved."""

import textwrap

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

CELLS = [
    """\
    import numpy as np, xarray as xr, xtorch_data as xtd
    data = xr.DataArray(np.zeros((50, 3)), dims=("time", "x"), name="a")
    dataset = xtd.IterableDataset(data, {"time": 5, "x": -1}, batch_size=2)
    """,
    "xtd.verify(dataset)",
    "counts = xtd.verify(dataset)",
    "counts",
    """\
    normalize = xtd.Normalize.fit(dataset, progress=True)
    for batch in xtd.watch(dataset):
        pass
    """,
]


def test_a_saved_notebook_has_each_proof_once_and_bars_as_text(tmp_path):
    cells = [nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    _, shown, assigned, asked, bars = (cell.outputs for cell in notebook.cells)
    for outputs in (shown, assigned, asked):
        [output] = outputs
        assert "10 samples: 0 repeated, 0 missing" in output.data["text/plain"]
        assert "xtorch_data.Verification" in output.data["text/html"]
    assert {(output.output_type, output.get("name")) for output in bars} == {("stream", "stdout")}
    lines = "".join(output.text for output in bars).strip("\n").split("\n")
    assert len(lines) == 2
    last = [line.rpartition("\r")[2] for line in lines]
    assert last[0].startswith("fitting: 100%")
    assert last[1].startswith("epoch 0: 100%")
