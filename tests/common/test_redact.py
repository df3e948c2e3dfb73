import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.common.redact import KEPT, LONGEST, _hidden, redacted, without_secrets, words_of

SECRET = "GeHeIm/+=17"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"https://me:{SECRET[:6]}@host/a.zarr", "https://***@host/a.zarr"),
        ("cached/https://me:geheim@host/a?b", "cached/https://***@host/a?***"),
        ("https://proxy/https://me:geheim@host/a", "https://proxy/https://***@host/a"),
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
        ("no access: sig=geheim&x=1", "no access: sig=***&x=1"),
        ("{'pass': 'geheim', 'passphrase': 'geheim'}", "{'pass': '***', 'passphrase': '***'}"),
        ('{"private_key": "-----BEGIN-----\\ngeheim"}', '{"private_key": "***"}'),
        ("{'auth': ('me', 'ge)heim'), 'a': 1}", "{'auth': (***), 'a': 1}"),
        (r"S3(key='k', secret='ge\'heim', a='b')", "S3(key='k', secret='***', a='b')"),
        (r'token="ge\\\"heim", a', 'token="***", a'),
        ("secret='geheim, of which the end is cut", "secret='***'"),
        ("SharedAccessSignature=sv=1&sig=geheim", "SharedAccessSignature=***&sig=***"),
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
        "author: me; compass=3; design=(1, 2)",
    ],
)
def test_plain_texts_stay_as_they_are(text):
    assert redacted(text) == text


PARTS = (
    "secret token sig auth a b https:// me:pw@h ? & = : ( [ ) ] ' \" \\ None bearer < > Some( *** ,"
).split() + [" "]


@given(st.text(st.characters(codec="utf-8")) | st.lists(st.sampled_from(PARTS)).map("".join))
def test_any_text_can_be_asked_for_twice(text):
    once = redacted(text)
    assert redacted(once) == once


@pytest.mark.parametrize(
    "part",
    "a_|a.|ab |aaaa|secret|secret_ |token=|auth: (|x='|secret=\"\\|a\\|https://h?a)|://|a://a|"
    "://@|bearer  |secret:   |password: 'a' ".split("|"),
)
def test_long_texts_are_done_with(part):
    """As long as a page of an error: with a pattern that looks back and forth they take hours."""
    assert len(_hidden(part * (100_000 // len(part)))) > 0
    found = redacted("secret=geheim " + part * 5 * LONGEST)
    assert "geheim" not in found and len(found) < 2 * KEPT


def test_no_secret_is_cut_in_two():
    for before in range(KEPT - 30, KEPT, 5):
        text = "x" * before + " https://me:geheim@host/a.zarr " + "y" * 3 * KEPT
        found = redacted(text)
        assert "ge" not in found
        assert redacted(found) == found


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
