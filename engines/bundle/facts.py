"""What is known of a model and of an engine: the parts of manifest.json, and engine.json."""

from typing import Annotated, Literal

import msgspec

from ...catalog.bounds import AboveZero, Number, Positive, Share, Size, Whole, check_names
from ...catalog.files import Frozen
from .sealed import Sealed

ENGINE_FACTS = "engine.json"
ENGINE_SCHEMA = 3
ENCODER = "encoder.onnx"  # beside a graph that decodes: what reads its prompts
CONSTRAINED = "constrained.onnx"  # beside an engine's graph: the same, its head with the catalog's columns alone
MOST_CALLS = 1 << 16  # places in the grid of sizes that an engine's calls are timed for
Precision = Literal["fp32", "fp16", "bf16"]  # of a graph's weights, caches and mask
EnginePrecision = Literal["fp32", "fp16", "bf16", "int8", "int8-weights"]
QUANTIZED: tuple[EnginePrecision, ...] = ("int8", "int8-weights")  # made by `calib`, and gated on rankings
# What TensorRT for RTX compiles for where nothing is said; GPUs after the last of them run such plans as well.
USUAL_TARGETS = ("8.0", "8.6", "8.9", "12.0")
Role = Literal["target", "draft"]
Scoring = Literal["full", "constrained"]


class EncoderFacts(Frozen, frozen=True):
    """What reads an encoder-decoder's prompts; its layers are as wide as the decoder's."""

    layers: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    start: Whole  # the token that the decoder begins with


class ModelFacts(Frozen, frozen=True):
    """One exported model, as its graph needs it to be fed."""

    architecture: str  # e.g. "LlamaForCausalLM"
    parameters: Size
    layers: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    kv_heads: Positive
    head_dim: Positive
    vocabulary: Positive  # rows of the head
    context: Positive  # positions the model was made for
    heads: Positive | None = None  # of queries; these three: None in bundles of before they were said
    hidden: Positive | None = None  # width of the residual stream
    intermediate: Positive | None = None  # width of the widest MLP, all experts of a token taken together
    slot_positions: bool = False  # whether its graphs take the positions of all slots: its attention asks how far apart
    encoder: EncoderFacts | None = None  # of encoder-decoders; all else is said of the decoder alone

    def __post_init__(self) -> None:
        if self.encoder is not None and self.encoder.start >= self.vocabulary:
            raise ValueError(f"its decoder begins with token {self.encoder.start} of {self.vocabulary}")

    @property
    def cache_names(self) -> tuple[str, ...]:
        """Of a cache's tensors, behind "past_key_values." and "present." in its graphs: "0.key", "0.value", ..."""
        return tuple(f"{layer}.{part}" for layer in range(self.layers) for part in ("key", "value"))


class FileFacts(Frozen, frozen=True):
    """One file of the bundle or of an engine."""

    sha256: str
    bytes: Size


class LatencyPoint(Frozen, frozen=True, omit_defaults=True):
    """How long one call of an engine takes at least."""

    batch: Positive
    past: Whole  # slots cached before the call
    new: Positive  # tokens in the call
    milliseconds: AboveZero
    interpolated: bool = False  # not timed: told by calls that were


class Comparison(Frozen, frozen=True):
    """A ranking metric of the quantized target beside the original's, on the same users."""

    reference: float
    value: float
    low: float | None  # 95 % bootstrap interval of value / reference - 1, users paired; None: the reference is 0
    high: float | None

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None) or (self.low or 0) > (self.high or 0):
            raise ValueError(f"got an interval from {self.low} to {self.high}; expected both ends, in order")


class Gate(Frozen, frozen=True):
    """How the quantized target ranks, on histories that nothing was calibrated on."""

    requests: Size
    users: Size  # who made them
    overlap: dict[str, Share]  # mean share of the original's first K items that are among its own, by K
    metrics: dict[str, Comparison]  # "recall@10", "ndcg@10", ...
    passed: bool

    def __post_init__(self) -> None:
        if "20" not in self.overlap or "ndcg@10" not in self.metrics:
            raise ValueError("a gate lacks the overlap at 20 or ndcg@10, which it is judged by")


class Trial(Frozen, frozen=True):
    """One way of quantizing a graph that was tried on this machine."""

    method: str  # of `calib.quantize`
    kept: tuple[str, ...]  # parts of the model that stayed in floating point
    milliseconds: dict[str, Number]  # by call shape: "prefill+verify", ...; empty where it would run elsewhere
    divergence: float  # nats, mean: of its next-token distributions from the float graph's (Kullback-Leibler)
    gate: Gate | None = None  # None: not compared


class Quantization(Frozen, frozen=True):
    """How a graph's weights and activations became integers."""

    method: str
    ranges: str | None  # how the activations' ranges were found: "minmax", "percentile", "entropy"; None: while running
    smooth: float | None  # alpha of SmoothQuant; None: weights as they are
    kept: tuple[str, ...]  # parts of the model that stay in floating point: "layers.0", "head"
    trials: tuple[Trial, ...]  # what was measured to choose the method


class Drafting(Frozen, frozen=True):
    """What a draft's precision costs: the same searches with both, beside each other."""

    users: Size
    acceptance: Share  # of needed nodes, that had been drafted
    reference_acceptance: Share  # ... with the original draft
    target_calls: Number  # a user
    reference_target_calls: Number


class Limits(Frozen, frozen=True, kw_only=True):
    """The largest calls that an engine takes; sizes that all its calls share."""

    max_batch: Positive  # requests
    max_prompt: Positive  # tokens of a prompt, a shared beginning included
    max_nodes: Positive  # new tokens of a request in one call, besides the prompt's
    path: Positive  # L, the size of `visible_slots`

    def begun(self, facts: ModelFacts) -> int:
        """The most slots of a cache that a prompt takes; where an encoder reads it, the decoder's first token alone."""
        return self.max_prompt if facts.encoder is None else 1

    def capacity(self, facts: ModelFacts, identifier_length: int) -> int:
        """The most slots that a cache may hold: a call a token of the identifier, each with all the nodes it may."""
        return self.begun(facts) + identifier_length * self.max_nodes


class TensorRTFacts(Frozen, frozen=True):
    """What a plan was built by, for, and with."""

    version: str  # TensorRT's, e.g. "10.16.1.11"
    compute_capability: str | None  # the GPU's that it was built on, e.g. "9.0"; None: it was built without one
    version_compatible: bool  # later versions run it, the lean runtime too
    hardware_compatible: bool  # other GPUs run it, from Ampere on
    limits: Limits
    profiles: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]  # names, in the plan's order
    compiled_for: tuple[str, ...] = ()  # compute capabilities that it was compiled for ahead of time, without a GPU


class RoleFacts(Frozen, frozen=True):
    """One graph of an engine."""

    precision: EnginePrecision
    cache: Precision  # of keys and values, and of the mask
    source_sha256: str  # `Bundle.graph_sha256` of what it was built from
    max_difference: Number | None  # largest difference of a log-probability to that graph; None: not compared yet
    latency: tuple[LatencyPoint, ...]  # (): not timed yet, because it was built where it cannot run
    quantization: Quantization | None = None
    tensorrt: TensorRTFacts | None = None

    def __post_init__(self) -> None:
        if bool(self.latency) != (self.max_difference is not None):
            raise ValueError("it was compared and not timed, or timed and not compared; expected both or none")
        sizes = [{point.batch for point in self.latency}, {point.past for point in self.latency}]
        if len(sizes[0]) * len(sizes[1]) * len({point.new for point in self.latency}) > MOST_CALLS:
            raise ValueError(f"the {len(self.latency)} calls that were timed are no grid of batch, past and new tokens")


class EngineFacts(Sealed, frozen=True, kw_only=True):
    """engine.json: what an engine was built from and for, and how fast it was there."""

    backend: str
    device: str
    precision: EnginePrecision  # the target's
    threads: Positive
    versions: dict[str, str]
    roles: dict[Role, RoleFacts]
    files: dict[str, FileFacts]  # path in the engine's folder
    gate: Gate | None = None  # None: not quantized, or not compared
    drafting: Drafting | None = None  # None: the draft's precision is the bundle's

    @property
    def measured(self) -> bool:
        """Whether it was compared and timed: when it was built, or later on this machine's GPU."""
        return all(role.latency for role in self.roles.values())

    @property
    def built_elsewhere(self) -> bool:
        """Whether it was compiled ahead of time, for GPUs that the machine which built it need not have had."""
        return any(role.tensorrt is not None and role.tensorrt.compiled_for for role in self.roles.values())

    @property
    def max_batch(self) -> int:
        """The most requests that all its graphs take in a call; `MOST_CALLS` where there is no limit."""
        plans = [role.tensorrt for role in self.roles.values() if role.tensorrt is not None]
        return min((plan.limits.max_batch for plan in plans), default=MOST_CALLS)

    def has_catalog_head(self, role: Role) -> bool:
        """Whether there is a graph for `constrained` scoring alone."""
        return f"{role}/{CONSTRAINED}" in self.files

    def __post_init__(self) -> None:
        check_names(self.files)
        if "target" not in self.roles:
            raise ValueError(f"it has the graphs {', '.join(self.roles) or 'of nothing'}; expected a target")
        if self.backend.startswith("tensorrt") and any(role.tensorrt is None for role in self.roles.values()):
            raise ValueError("it does not say what its TensorRT plans were built for")
        if not (self.measured or self.built_elsewhere):
            raise ValueError("it has no latency; only what is compiled ahead of time may lack it")
