"""What calls take of memory, reckoned."""

from dataclasses import replace as changed

from msgspec.structs import replace

from specbeam.engines.bundle.facts import EncoderFacts, ModelFacts
from specbeam.engines.footprint import Footprint, Reading, footprint_of

FACTS = ModelFacts(
    architecture="LlamaForCausalLM", parameters=1, layers=2, kv_heads=4, head_dim=16, vocabulary=152_000, context=4096,
    heads=8, hidden=64, intermediate=256,
)  # fmt: skip


def test_a_call_holds_both_caches_and_the_larger_of_a_layer_and_the_head() -> None:
    each = Footprint(slot=10, token=100, pair=3, row=1000)
    assert each.cache(2, 50) == 1000
    assert each.call(2, 4, 50, 1) == 10 * 2 * 54 + 2 * max(4 * (100 + 3 * 54), 1000)
    assert each.call(2, 4, 50, 4) == 10 * 2 * 54 + 2 * 4000


def test_rows_of_logits_are_of_the_vocabulary_twice() -> None:
    found = footprint_of(FACTS, "fp32", columns=256, rows_of_head=FACTS.vocabulary)
    assert found.row == 2 * 4 * 152_000 + 2 * 4 * 256
    assert found.slot == 2 * 2 * 4 * 16 * 4
    assert found.pair == 4 * 8 + 5
    assert footprint_of(FACTS, "fp32", columns=256, rows_of_head=256).row == 4 * 4 * 256


def test_half_precision_halves_caches_and_is_computed_beside_what_it_was() -> None:
    whole, half = (footprint_of(FACTS, kind, columns=256, rows_of_head=FACTS.vocabulary) for kind in ("fp32", "fp16"))
    assert half.slot == whole.slot // 2
    assert half.row > whole.row
    assert half.token > whole.token


def test_bundles_that_do_not_say_widths_are_reckoned_with_usual_ones() -> None:
    silent = replace(FACTS, heads=None, hidden=None, intermediate=None)
    usual, said = (footprint_of(f, "fp32", columns=256, rows_of_head=FACTS.vocabulary) for f in (silent, FACTS))
    assert usual.pair > said.pair
    assert usual.token > said.token
    assert (usual.slot, usual.row) == (said.slot, said.row)


def test_an_encoder_takes_its_own_and_leaves_keys_that_every_call_looks_at() -> None:
    each = Footprint(slot=10, token=100, pair=3, row=1000, reading=Reading(slot=20, token=50, pair=2, cross=7))
    assert each.reading is not None
    assert each.reading.call(2, 30) == 2 * 30 * (20 + 50 + 2 * 30)
    assert (each.slots(30), each.read(30), each.cache(2, 5, 30)) == (1, 30, 2 * (10 * 5 + 20 * 30))
    assert each.call(2, 4, 50, 1, 30) == 10 * 2 * 54 + 2 * 4 * (100 + 3 * 54 + 7 * 30)
    plain = changed(each, reading=None)
    assert (plain.slots(30), plain.read(30), plain.cache(2, 5)) == (30, 0, 100)


def test_relative_biases_are_a_mask_of_every_head() -> None:
    plain, reads = (
        footprint_of(facts, "fp32", columns=256, rows_of_head=FACTS.vocabulary)
        for facts in (FACTS, replace(FACTS, encoder=EncoderFacts(layers=2, start=0), slot_positions=True))
    )
    assert reads.reading is not None
    assert reads.pair - plain.pair >= 2 * 4 * 8
    assert (reads.slot, reads.reading.slot, reads.token) == (plain.slot, plain.slot, plain.token)
