"""What stands in config.pbtxt: read as it was written, and refused where it is wrong."""

import pytest

from specbeam.catalog.errors import OptionError
from specbeam.serve import Serving
from specbeam.serve.triton.config import config_text
from specbeam.serve.triton.settings import TritonSettings, read_settings, written_settings


def test_they_are_read_as_they_were_written() -> None:
    for settings in (
        TritonSettings(), TritonSettings(policy="in-flight", batch_size=16, wait_ms=1.5), TritonSettings(max_k=50)
    ):  # fmt: skip
        assert read_settings(written_settings(settings)) == settings
    assert written_settings(TritonSettings()) == "{}"


def test_a_default_is_the_one_of_whoever_takes_it() -> None:
    assert TritonSettings().serving() == Serving()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"speed": 9}', "unknown field `speed`"),
        ('{"threads": 0}', "threads"),
        ('{"threads": 100000}', "threads"),
        ('{"policy": "fast"}', "policy"),
        ('{"batch_size": "8"}', "batch_size"),
        ('{"wait_ms": -1}', "wait_ms"),
        ('{"mode": "sampled", "scoring": "full"}', "sampled verification cannot use full scoring"),
        ('{"speculation": "auto", "draft_width": 3}', "auto decides how much to draft"),
        ("{", "truncated"),
        ("[]", "Expected `object`"),
    ],
)
def test_what_is_wrong_is_said(text: str, told: str) -> None:
    with pytest.raises(OptionError, match=r"config\.pbtxt, parameter 'specbeam'") as error:
        read_settings(text)
    assert told in str(error.value)


def test_quotes_and_backslashes_survive_the_text_format() -> None:
    text = config_text("shop", TritonSettings(engine="a'b\\c"), instances=1, kind="KIND_CPU")
    assert r"""{"engine":"a\'b\\\\c"}""" in text
