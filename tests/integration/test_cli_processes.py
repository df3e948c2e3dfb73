"""The command line as a process."""

import os
import subprocess
import sys

import pytest
from helpers import forecast

import xtorch_data as xtd

pytestmark = pytest.mark.compat


def test_it_is_a_module_too():
    command = [sys.executable, "-m", "xtorch_data", "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == f"xtorch-data, version {xtd.__version__}\n"


def test_who_reads_the_output_may_stop(tmp_path):
    forecast().to_zarr(tmp_path / "a.zarr", consolidated=False)
    arguments = ["explain", str(tmp_path / "a.zarr"), "--input-dims", "time=8"]
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "xtorch_data", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
