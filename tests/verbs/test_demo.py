"""The demo at a size that takes seconds: every stage runs, and its claims are printed."""

from pathlib import Path

import pytest

from specbeam.align.synthetic import ShopSize
from specbeam.catalog.errors import SpecBeamError
from specbeam.runtime.types import Recommendation, RecommendedItem, RequestStats
from specbeam.verbs import demo_steps as demo

SHOP = ShopSize(items=200, twins=4, train_users=200, held_out_users=20, longest=10)


def ranked(*pairs: tuple[str, float]) -> Recommendation:
    items = tuple(RecommendedItem(item, None, score, (item,)) for item, score in pairs)
    return Recommendation(items, RequestStats(1, 0, 0), 0, False)


@pytest.mark.usefixtures("quick_exports")
@pytest.mark.parametrize("pair", [(demo.TARGET, demo.DRAFT), ("t5:2x32", "t5:1x32")], ids=["decoders", "t5"])
def test_the_whole_way(tmp_path: Path, pair: demo.Pair) -> None:
    lines: list[str] = []
    demo.run_demo(tmp_path / "demo", pair=pair, steps=(20, 20, 10), users=10, k=5, shop=SHOP, echo=lines.append)
    text = "\n".join(lines)
    assert "Lists equal to plain beam search: 10 of 10" in text
    assert "needed nodes that are drafted (top 5," in text
    assert "Target calls a user" in text
    assert "speed ratio" in text
    assert text.count("is recommended") == demo.SHOWN_USERS
    assert str(tmp_path / "demo" / "bundle") in text
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == [
        "aligned", "bundle", "draft", "shop", "target",
    ]  # fmt: skip
    with pytest.raises(SpecBeamError, match="exists already"):
        demo.run_demo(tmp_path / "demo")


def test_only_rounding_and_ties_may_differ() -> None:
    plain = ranked(("1", -1.0), ("2", -2.0), ("3", -2.00005))
    assert demo.same_list(plain, plain)
    assert demo.same_list(ranked(("1", -1.0005), ("2", -2.0), ("3", -2.0)), plain)
    assert demo.same_list(ranked(("1", -1.0), ("3", -2.00005), ("2", -2.0)), plain)
    assert not demo.same_list(ranked(("2", -2.0), ("1", -1.0), ("3", -2.00005)), plain)
    assert not demo.same_list(ranked(("1", -1.0), ("2", -2.0)), plain)
    assert not demo.same_list(ranked(("1", -1.1), ("2", -2.0), ("3", -2.00005)), plain)


def test_a_list_that_drafting_changed_is_an_error() -> None:
    same, other = ranked(("1", -1.0)), ranked(("2", -1.5))
    demo.check_same(demo.Run([same, same], 1.0, 0), demo.Run([same, same], 1.0, 0))
    with pytest.raises(SpecBeamError, match=r"1 of 2 lists differ .* user 1\)"):
        demo.check_same(demo.Run([same, other], 1.0, 0), demo.Run([same, same], 1.0, 0))
