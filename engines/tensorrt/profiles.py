"""Engines that are built for ranges of shapes: the ranges of a bundle's calls, and their arithmetic."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from ...catalog.errors import EngineError
from ...catalog.files import Frozen
from ..bundle.facts import Limits, ModelFacts, Precision, Role

Shape = tuple[int, ...]
Axis = Literal["batch", "sequence", "past", "rows", "prompt"]
Range = tuple[int, int, int]  # smallest, the one to optimise for, largest
OPTIONS: Mapping[str, str] = {
    "batch": "--max-batch",
    "sequence": "--max-nodes (or --max-prompt)",
    "past": "--max-prompt (or --max-nodes)",
    "rows": "--max-nodes",
    "prompt": "--max-prompt",
}
BYTES: Mapping[str, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
READING = "read"  # an encoder's only kind of call
LARGEST = 2**31 - 1  # elements of a tensor in TensorRT; bytes between two tensors that CUDA copies at once


class Profile(Frozen, frozen=True):
    """One kind of call: the smallest, the typical and the largest shape of every input."""

    name: str
    shapes: dict[str, tuple[Shape, Shape, Shape]]

    def range(self, axis: Axis) -> Range:
        """What an axis may be."""
        name, where = {
            "batch": ("input_ids", 0),
            "sequence": ("input_ids", 1),
            "past": ("past_key_values.0.key", 2),
            "rows": ("logit_rows", 1),
            "prompt": ("input_ids", 1),  # of an encoder
        }[axis]
        smallest, typical, largest = self.shapes[name]
        return smallest[where], typical[where], largest[where]


def input_axes(facts: ModelFacts, path: int) -> dict[str, tuple[Axis | int, ...]]:
    """Every input of a graph with index inputs (docs/design.md, "The graph's contract") and its axes."""
    inputs: dict[str, tuple[Axis | int, ...]] = {
        "input_ids": ("batch", "sequence"),
        "position_ids": ("batch", "sequence"),
        "visible_below": ("batch", "sequence"),
        "visible_slots": ("batch", "sequence", path),
        "logit_rows": ("batch", "rows"),
    }
    for name in facts.cache_names:
        inputs[f"past_key_values.{name}"] = ("batch", facts.kv_heads, "past", facts.head_dim)
    if facts.encoder is not None:
        inputs["prompt_lengths"] = ("batch",)
        for name in facts.cache_names:
            inputs[f"read_key_values.{name}"] = ("batch", facts.kv_heads, "prompt", facts.head_dim)
    return inputs


def profiles_for(role: Role, facts: ModelFacts, limits: Limits, identifier_length: int) -> tuple[Profile, Profile]:
    """The two kinds of call that a model gets: the one that brings the prompts, and those behind it.

    The first may stand behind a cached beginning that all prompts share, and brings nodes as well (a
    draft's only where it is asked late). Both are optimised for half of what they may be, the draft's
    prompts for a single row of logits. Where an encoder reads prompts, a decoder's is one token.
    """
    beside: dict[Axis, Range] = {"batch": _up_to(limits.max_batch), "prompt": _up_to(limits.max_prompt)}
    prompt, nodes, draft = limits.begun(facts), limits.max_nodes, role == "draft"
    tokens = _half(prompt) + (0 if draft else _half(nodes))
    cached = prompt if facts.encoder is None else _half(nodes)
    first: dict[Axis, Range] = {
        "sequence": (1, tokens, prompt + nodes),
        "past": (0, 1, prompt),  # none, mostly; but nothing is worth timing on an empty tensor
        "rows": (1, 1 if draft else min(_half(nodes), tokens), nodes + 1),  # the prompt's last token, too
    }
    later: dict[Axis, Range] = {
        "sequence": (1, _half(nodes), nodes),
        "past": (1, cached, limits.capacity(facts, identifier_length) - 1),
        "rows": (1, _half(nodes), nodes),
    }
    names = ("prefill", "draft step") if draft else ("prefill+verify", "verify")
    axes = input_axes(facts, limits.path)
    one, two = (_profile(name, axes, ranges | beside) for name, ranges in zip(names, (first, later), strict=True))
    return one, two


def reading_profile(limits: Limits) -> Profile:
    """The one kind of call that an encoder gets."""
    ranges: dict[Axis, Range] = {"batch": _up_to(limits.max_batch), "prompt": _up_to(limits.max_prompt)}
    return _profile(READING, {"input_ids": ("batch", "prompt"), "prompt_lengths": ("batch",)}, ranges)


def choose(profiles: Sequence[Profile], *, batch: int, past: int, new: int, rows: int, rebuild: str) -> int:
    """Index of the profile that takes a call, the one made for the fewest tokens where several do.

    Raises `EngineError` naming the limit to raise, and `rebuild`, the command that builds the engine again.
    """
    call: dict[Axis, int] = {"batch": batch, "sequence": new, "past": past, "rows": rows}
    capacity = max(profile.range("past")[2] for profile in profiles) + 1
    over = {
        p: [axis for axis in call if not _within(call[axis], profile.range(axis))] for p, profile in enumerate(profiles)
    }
    fitting = [p for p, axes in over.items() if not axes]
    if fitting and past + new <= capacity:
        return min(fitting, key=lambda p: profiles[p].range("sequence")[2])
    nearest = min(over, key=lambda p: len(over[p]))
    axes = over[nearest] or ["past"]
    raise EngineError(
        f"The engine was not built for a call of {batch} requests with {new} tokens and {rows} rows of logits each, on "
        f"{past} cached slots of at most {capacity}; it takes {_describe(profiles)}. Ask for less at a time, or build "
        f"it again with a larger {', '.join(OPTIONS[axis] for axis in axes)} than in: {rebuild}"
    )


def check_reading(profile: Profile, *, batch: int, prompt: int, rebuild: str) -> None:
    """Raise `EngineError`, as `choose` does, where an encoder does not take so many prompts of up to so many tokens."""
    asked: dict[Axis, int] = {"batch": batch, "prompt": prompt}
    over = [axis for axis, value in asked.items() if not _within(value, profile.range(axis))]
    if over:
        raise EngineError(
            f"The engine was not built to read {batch} prompts of up to {prompt} tokens; it takes "
            f"{profile.range('batch')[2]} of up to {profile.range('prompt')[2]}. Ask for less at a time, or build it "
            f"again with a larger {', '.join(OPTIONS[axis] for axis in over)} than in: {rebuild}"
        )


def check_profiles(
    profiles: Sequence[Profile],
    facts: ModelFacts,
    limits: Limits,
    inputs: Mapping[str, Sequence[int | str]],
    *,
    identifier_length: int,
    cache: Precision,
) -> None:
    """Check ranges against each other and against a graph, before minutes are spent on building.

    inputs: every input of the graph with its axes, a number or the axis's name. Raises one `EngineError`
    with all faults, each with the option to change.
    """
    faults = list(_limit_faults(facts, limits, identifier_length, cache))
    for profile in profiles:
        faults += [f"profile {profile.name!r}: {fault}" for fault in _profile_faults(profile, inputs)]
    if faults:
        listed = "\n".join(f"- {fault}" for fault in faults)
        raise EngineError(f"Nothing was built: the calls to build for do not fit together.\n{listed}")


def check_memory(facts: ModelFacts, limits: Limits, *, identifier_length: int, cache: Precision, total: int) -> None:
    """Raise `EngineError` where the largest batch's cache alone would not fit a GPU of `total` bytes."""
    needed = cache_bytes(facts, limits, identifier_length=identifier_length, cache=cache)
    if needed > total:
        slots = limits.capacity(facts, identifier_length)
        raise EngineError(
            f"The cache of {limits.max_batch} requests with {slots} slots each takes "
            f"{needed / 2**30:.1f} GiB (two buffers a layer); this GPU has {total / 2**30:.1f} GiB in all. Lower "
            "--max-batch, --max-nodes or --max-prompt."
        )


def cache_bytes(facts: ModelFacts, limits: Limits, *, identifier_length: int, cache: Precision) -> int:
    """Device memory of one cache at its largest: keys and values of every layer, in two buffers each.

    What an encoder has read of prompts is copied as well, when requests leave or join a batch.
    """
    slots = limits.capacity(facts, identifier_length) + (0 if facts.encoder is None else limits.max_prompt)
    return 2 * 2 * facts.layers * limits.max_batch * _slots_bytes(facts, slots, cache)


def _up_to(most: int) -> Range:
    return 1, _half(most), most


def _half(most: int) -> int:
    return max(1, most // 2)


def _within(value: int, allowed: Range) -> bool:
    return allowed[0] <= value <= allowed[2]


def _slots_bytes(facts: ModelFacts, slots: int, cache: Precision) -> int:
    return facts.kv_heads * slots * facts.head_dim * BYTES[cache]


def _profile(name: str, inputs: Mapping[str, tuple[Axis | int, ...]], ranges: Mapping[Axis, Range]) -> Profile:
    def shape(axes: tuple[Axis | int, ...], which: int) -> Shape:
        return tuple(axis if isinstance(axis, int) else ranges[axis][which] for axis in axes)

    return Profile(
        name=name, shapes={key: (shape(axes, 0), shape(axes, 1), shape(axes, 2)) for key, axes in inputs.items()}
    )


def _describe(profiles: Sequence[Profile]) -> str:
    axes: tuple[Axis, ...] = ("batch", "sequence", "past", "rows")
    ranges = {profile.name: {axis: profile.range(axis) for axis in axes} for profile in profiles}
    return "; ".join(
        f"{name}: " + ", ".join(f"{axis} {least} to {most}" for axis, (least, _, most) in of.items())
        for name, of in ranges.items()
    )


def _limit_faults(facts: ModelFacts, limits: Limits, identifier_length: int, cache: Precision) -> Iterator[str]:
    for option, value in (
        ("--max-batch", limits.max_batch),
        ("--max-prompt", limits.max_prompt),
        ("--max-nodes", limits.max_nodes),
    ):
        if value < 1:
            yield f"{option} is {value}, expected at least 1"
    room = facts.context - identifier_length + 1  # an identifier's last token is never evaluated
    if facts.encoder is not None and limits.max_prompt > facts.context:
        yield (
            f"--max-prompt is {limits.max_prompt}; the model was made for prompts of {facts.context} tokens. Lower it "
            f"to {facts.context} or less"
        )
    if facts.encoder is None and limits.max_prompt > room:
        yield (
            f"--max-prompt is {limits.max_prompt}; behind it an identifier needs {identifier_length - 1} of the "
            f"model's {facts.context} positions. Lower it to {room} or less"
        )
    if limits.path < identifier_length:
        yield f"visible_slots has room for {limits.path} slots, and identifiers have {identifier_length} tokens"
    rows = limits.max_batch * (limits.max_nodes + 1) * facts.vocabulary
    if rows > LARGEST:
        yield (
            f"the largest call's log-probabilities have {rows} elements, TensorRT's tensors at most {LARGEST}. Lower "
            "--max-batch or --max-nodes"
        )
    slots = max(limits.capacity(facts, identifier_length), limits.max_prompt)
    part = limits.max_batch * _slots_bytes(facts, slots, cache)
    if part > LARGEST:
        yield f"a layer's largest cache has {part} bytes, expected at most {LARGEST}. Lower --max-batch or --max-nodes"


def _profile_faults(profile: Profile, inputs: Mapping[str, Sequence[int | str]]) -> Iterator[str]:
    """Ranges of one profile against the graph's inputs: axes of one name are one axis, whatever the input."""
    for name in sorted(inputs.keys() - profile.shapes.keys()):
        yield f"the graph's input {name} has no shapes"
    for name in sorted(profile.shapes.keys() - inputs.keys()):
        yield f"it has shapes for {name}, which the graph has not (inputs: {', '.join(inputs)})"
    seen: dict[str, tuple[str, Range]] = {}
    for name in sorted(inputs.keys() & profile.shapes.keys()):
        axes, shapes = inputs[name], profile.shapes[name]
        if any(len(shape) != len(axes) for shape in shapes):
            yield f"{name} has {len(axes)} axes in the graph, shapes with {', '.join(str(len(s)) for s in shapes)}"
            continue
        for axis, (least, typical, most) in zip(axes, zip(*shapes, strict=True), strict=True):
            allowed = (least, typical, most)
            if isinstance(axis, int):
                if set(allowed) != {axis}:
                    yield f"{name} has a fixed axis of {axis}, shapes with {allowed}"
            elif axis not in OPTIONS:
                yield f"{name} has an axis {axis!r}, expected one of: {', '.join(OPTIONS)}"
            else:
                if not 0 <= least <= typical <= most:
                    yield f"{axis} of {name} must rise from least to most, got {allowed}. Change {OPTIONS[axis]}"
                other, first = seen.setdefault(axis, (name, allowed))
                if first != allowed:
                    yield f"{axis} is {first} in {other} and {allowed} in {name}"
    if {"sequence", "rows"} <= seen.keys():
        rows, tokens = seen["rows"][1], seen["sequence"][1]
        if any(row > token for row, token in zip(rows, tokens, strict=True)):
            yield f"rows {rows} exceed sequence {tokens}, and every row of logits is a token of the call"
