"""Tests that need processes, servers, clusters or frameworks: all in this folder are marked so."""

import urllib.request
from pathlib import Path

import pytest
from s3_server import Server


def pytest_collection_modifyitems(items):
    """Mark what lies here `integration`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("integration")


@pytest.fixture(scope="session")
def s3():
    """An S3 server on loopback, moto's, behind one that counts, delays and spoils requests."""
    pytest.importorskip("moto")
    with Server(delay=0.0) as server:
        yield server


@pytest.fixture
def s3_environment(s3):
    """What tells s3fs and obstore where the server is, and who asks; it has a bucket."""
    made = urllib.request.Request(f"{s3.endpoint}/my-bucket", method="PUT")
    urllib.request.urlopen(made).close()
    return {
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "nobody knows",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
