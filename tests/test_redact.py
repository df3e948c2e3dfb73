import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.redact import redacted, without_secrets, words_of

SECRET = "GeHeIm/+=17"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"https://me:{SECRET[:6]}@host/a.zarr", "https://***@host/a.zarr"),
        ("https://token@host/a.zarr", "https://***@host/a.zarr"),
        ("abfs://container@account.dfs/a", "abfs://container@account.dfs/a"),
        (f"(https://h/a?X-Amz-Signature={SECRET}&b=1)", "(https://h/a?***)"),
        (f"{{'key': 'k', 'secret': '{SECRET}'}}", "{'key': 'k', 'secret': '***'}"),
        (f'secret_access_key: Some("{SECRET}")', 'secret_access_key: Some("***")'),
        (
            f"<Error><SessionToken>{SECRET}</SessionToken>",
            "<Error><SessionToken>***</SessionToken>",
        ),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        ("AKIAIOSFODNN7EXAMPLE is unknown", "*** is unknown"),
        ("password='with a space', user='me'", "password='***', user='me'"),
    ],
)
def test_secrets_are_hidden_and_what_is_around_them_is_not(text, expected):
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "could not read 't2m' at isel(time=0:40) from s3://bucket/a.zarr: what? key=3",
        "file:///tmp/a.zarr and /tmp/b@c.zarr",
        "object_store://S3Store(bucket='b', prefix='a.zarr')",
        "no password was given; token=None",
        "https://host:8080/a/b@2x.zarr",
    ],
)
def test_plain_texts_stay_as_they_are(text):
    assert redacted(text) == text


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_can_be_asked_for_twice(text):
    once = redacted(text)
    assert redacted(once) == once


class Composing(Exception):
    """Makes its message of what it holds."""

    def __init__(self, url):
        self.url = url

    def __str__(self):
        return f"no answer from {self.url}"


def raised(error, cause=None):
    try:
        raise error from cause
    except Exception as caught:
        return caught


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda url: OSError(f"cannot get {url}"),
        lambda url: FileNotFoundError(2, "not there", url),
        lambda url: Composing(url),
        lambda url: ExceptionGroup("some", [KeyError(url)]),
    ],
)
def test_errors_that_show_secrets_are_made_to_hide_them(make, outer):
    error = make("https://me:geheim@host/a?sig=geheim")
    error.add_note("with secret=geheim")
    found = without_secrets(raised(ValueError("outer"), error) if outer else raised(error))
    printed = "".join(traceback.format_exception(found))
    assert "geheim" not in printed
    assert "geheim" not in words_of(found)


def test_other_errors_are_themselves():
    error = raised(FileNotFoundError(2, "not there", "/tmp/a"), KeyError("x"))
    assert without_secrets(error) is error
    assert error.filename == "/tmp/a"
