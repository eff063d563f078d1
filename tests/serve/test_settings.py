"""What hosts hand over as JSON is what the options of `specbeam serve` say, or is refused with what is wrong."""

import pytest

from specbeam.catalog.errors import OptionError
from specbeam.runtime import Batching, Drafting, DraftShape, EngineChoice, Verification
from specbeam.serve import Serving
from specbeam.serve.opening import Opening
from specbeam.serve.settings import Settings, Verifying, settings_of


@pytest.mark.parametrize("text", ["", "{}", " {} "])
def test_what_is_not_said_has_its_default(text: str) -> None:
    told = settings_of(text, Settings, "settings")
    assert (told.opening(), told.serving()) == (Opening(), Serving())


def test_everything_can_be_said() -> None:
    told = settings_of(
        '{"engine": "e", "device": "cpu", "threads": 3, "policy": "in-flight", "batch_size": 4, "wait_ms": 1.5, '
        '"queue": 9, "drafter": "model", "speculation": "fixed", "draft_width": 6, "draft_length": 2, '
        '"mode": "sampled", "temperature": 0.5, "seed": 3, "memory": 1000000000}',
        Settings, "settings",
    )  # fmt: skip
    assert told.serving() == Serving("in-flight", 4, 1.5, 9, 10**9)
    assert told.opening() == Opening(
        EngineChoice("e", "cpu", 3), Drafting("model", speculation="fixed", shape=DraftShape(6, 2)),
        Verification("sampled", temperature=0.5, seed=3), Batching(4, 10**9),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"thread": 1}', "unknown field `thread`"),
        ('{"threads": "many"}', r"at `\$.threads`"),
        ('{"threads": 0}', r"at `\$.threads`"),
        ('{"threads": 2000}', "threads is 2000"),
        ('{"speculation": "auto", "draft_width": 3}', "auto decides how much to draft"),
        ('{"batch_size": 0}', r"at `\$.batch_size`"),
        ('{"batch_size": 99999999}', "a batch's size is 99999999, expected a whole number, 1 to 1024"),
        ('{"mode": "strictly"}', r"at `\$.mode`"),
        ('{"seed": 1}', "a seed of 1 is for relaxed and sampled"),
        ("[1]", "Expected `object`"),
        ("{", "truncated"),
        ("\ud800", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        settings_of(text, Settings, "settings")


def test_a_verification_keeps_the_settings_of_its_own_mode() -> None:
    own = Verification("sampled", temperature=0.5, seed=1)
    assert Verifying().over(own) is None
    assert Verifying(seed=2).over(own) == Verification("sampled", temperature=0.5, seed=2)
    assert Verifying(mode="strict").over(own) == Verification()
    with pytest.raises(OptionError, match="slack"):
        Verifying(mode="tolerant").over(own)
