"""The steps of a quantized build: record, calibrate, try, gate."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, get_args

from msgspec.structs import replace

from ..catalog.errors import OptionError
from ..engines.backend import Progress
from ..engines.base import Engine
from ..engines.build import Order, QuantizedGraph
from ..engines.bundle.facts import QUANTIZED, Drafting, Gate, Role
from ..engines.bundle.items import Bundle, of_items
from ..graphs.files import load_graph, save_graph
from ..runtime import DraftShape, Recommender, Verification
from ..runtime.loaded import Loaded
from ..runtime.planning.policy import FixedPlanning
from .calls import Calls, record_calls
from .data import Split
from .gate import Ranked, compare, ranked_lists, refusal
from .graphs import graphs_of
from .options import Int8Options, kept_parts
from .quantize import BITS, Method
from .ranges import Ranges, compute_ranges, load_ranges, save_ranges
from .sensitivity import node_groups, sensitivity
from .smooth import smooth
from .trials import SEARCHES, Candidate, Float, load_optimised, logprobs_of, try_method

# One scale for a whole activation: who shares a call changes everybody's scores, and drafting would change the lists.
MIXING: Final = ("dynamic",)
SPARED: Final = 4  # one part of so many stays in floating point where nothing passes the gate otherwise
COMPARED_DRAFTS: Final = 200  # users on whom a quantized draft is compared with the original


@dataclass
class Int8Build:
    """The steps of one build; see `build_int8`."""

    order: Order
    options: Int8Options
    data: Split
    given: Path | None  # a folder with ranges of an earlier calibration
    scratch: Path
    progress: Progress
    calls: dict[Role, Calls] = field(default_factory=dict)
    floats: dict[Role, Engine] = field(default_factory=dict)  # the original graphs, loaded
    ranges: dict[Role, Ranges] = field(default_factory=dict)

    def methods(self, role: Role) -> tuple[Method, ...]:
        """What is tried."""
        return offered(self.order, role) if self.options.method == "auto" else (self.options.method,)

    def calibrated(self, role: Role) -> bool:
        """Whether a role's activations are measured: for integers of their own, or to smooth them."""
        return self.smoothing(role) is not None or "static" in self.methods(role)

    def smoothing(self, role: Role) -> float | None:
        """The strength of SmoothQuant, which is for activations that are rounded."""
        return None if self.order.precisions[role] == "int8-weights" else self.options.smooth

    def check(self) -> None:
        """Raise `SpecBeamError` for what could only fail later, after minutes."""
        method, backend = self.options.method, self.order.backend
        for role in self.quantized:
            if method not in ("auto", *(ways := offered(self.order, role))):
                precision = self.order.precisions[role]
                reason = backend.why_not(method)
                raise OptionError(
                    f"the {backend.name} backend takes {precision} by {', '.join(ways)}; got {method}"
                    f"{f': {reason}' if reason else ''}."
                )
            parts = self.parts(self.bundle.graph(role))
            self.kept(role, parts)
            if self.given is not None and self.calibrated(role):
                load_ranges(self.given / ranges_file(role), self.bundle.graph_sha256(role))

    @property
    def bundle(self) -> Bundle:
        """What is being built; raises `BundleError` for text, whose rankings there are none to compare."""
        return of_items(self.order.bundle, "int8 engine")

    @property
    def quantized(self) -> tuple[Role, ...]:
        """The roles that are quantized."""
        return tuple(role for role, precision in self.order.precisions.items() if precision in QUANTIZED)

    def record(self) -> None:
        """Load the original graphs and record what real searches ask of them: all for ranges, else as many as it takes.

        Without ranges, recorded calls only tell how far the quantized distributions are.
        """
        bundle, threads = self.bundle, self.order.threads
        for role in self.order.precisions:
            self.progress(f"loading {role}", 0, 1)
            folder = self.scratch / f"{role}-original"
            self.floats[role] = load_optimised(bundle.graph(role), bundle.facts(role), folder, threads)[1]
        histories = [example.history for example in self.data.calibration]
        some = len(histories) if any(map(self.calibrated, self.quantized)) else min(SEARCHES, len(histories))
        self.calls = record_calls(
            bundle, histories, self.floats["target"], self.floats.get("draft"), count=some,
            seed=self.options.seed, progress=partial(self._told, "recording calls", some),
        )  # fmt: skip

    def prepare(self, role: Role) -> Float:
        """Ranges where they are needed, and the graph to quantize, smoothed if asked."""
        bundle, backend, smoothing = self.bundle, self.order.backend, self.smoothing(role)
        graph, source = bundle.graph(role), bundle.graph_sha256(role)
        if self.calibrated(role):
            self.ranges[role] = self._measured(role, graph, source)
            save_ranges(self.ranges[role], self.scratch / ranges_file(role))
        if smoothing is not None:
            folder = self.scratch / f"{role}-smooth"
            folder.mkdir()
            for one in graphs_of(graph):
                model = load_graph(one)
                smoothed = smooth(model, self.ranges[role].of(one), alpha=smoothing)
                self.ranges[role] = self.ranges[role].merged(one, smoothed)
                save_graph(model, folder / one.name)
            graph = folder / graph.name
        some = self.calls[role].some(SEARCHES)
        return Float(
            bundle, role, graph, some, logprobs_of(self.floats[role], some), self.order.threads,
            not backend.zero_points, backend.weights, backend.cache(self.order.precisions[role], "fp32"),
        )  # fmt: skip

    def _measured(self, role: Role, graph: Path, source: str) -> Ranges:
        if self.given is not None:
            return load_ranges(self.given / ranges_file(role), source)
        return compute_ranges(
            graph, self.calls[role], self.options.estimator, source_sha256=source,
            percentile=self.options.percentile, threads=self.order.threads,
            progress=partial(self.progress, f"calibrating {role}"),
        )  # fmt: skip

    def candidates(self, of: Float, keep: Sequence[str]) -> list[Candidate]:
        """Every way that may be tried, the fastest first; behind all others what depends on a call's other tokens."""
        tried, methods = [], self.methods(of.role)
        for done, method in enumerate(methods):
            self.progress(f"trying {of.role}: {method}", done, len(methods))
            tried.append(self._tried(of, method, keep))
        return sorted(tried, key=lambda candidate: (candidate.method in MIXING, candidate.milliseconds))

    def _tried(self, of: Float, method: Method, keep: Sequence[str]) -> Candidate:
        ranges, smoothing = self.ranges.get(of.role), self.smoothing(of.role)
        return try_method(of, method, self.scratch, ranges=ranges, smooth=smoothing, kept=keep)

    def target(self) -> tuple[QuantizedGraph, Gate | None, Engine]:
        """The fastest target that passes the gate, and it loaded; raises `EngineError` where none does."""
        of = self.prepare("target")
        keep = self.kept("target", self.parts(of.graph))
        candidates = self.candidates(of, keep)
        if not self.options.gate:
            return chosen(candidates, candidates[0]), None, candidates[0].open(of)
        reference = self.ranked(self.floats["target"], "original")
        tried = list(candidates)
        for number, candidate in enumerate(candidates):
            tried[number] = self._gated(of, candidate, reference)
            if passed(tried[number]):
                return chosen(tried, tried[number]), tried[number].trial.gate, candidate.open(of)
        if not keep:
            spared = self._tried(of, candidates[0].method, self.most_sensitive(of, candidates[0]))
            tried.append(self._gated(of, spared, reference))
            if passed(tried[-1]):
                return chosen(tried, tried[-1]), tried[-1].trial.gate, spared.open(of)
        best = max((one.trial for one in tried), key=lambda trial: trial.gate.overlap["20"] if trial.gate else 0)
        assert best.gate is not None
        others = ", ".join(dict.fromkeys(one.method for one in tried if one.method != best.method))
        what = best.method + (f"; no better: {others}" if others else "")
        raise refusal(best.gate, what, self.order.precisions["target"])

    def kept(self, role: Role, parts: Sequence[str]) -> list[str]:
        """What stays in floating point because it was asked for: in the target, or a draft that alone is quantized."""
        return kept_parts(self.options.keep, parts) if role == self.quantized[0] else []

    @staticmethod
    def parts(graph: Path) -> list[str]:
        """Parts of a model that can be left as they are: layers, head."""
        return list(dict.fromkeys(part for one in graphs_of(graph) for part in node_groups(load_graph(one)).values()))

    def most_sensitive(self, of: Float, candidate: Candidate) -> list[str]:
        """The parts whose quantization changes the target's distributions most: one of `SPARED`."""
        method = candidate.method
        found = sensitivity(
            of.graph, of.calls, method, ranges=self.ranges.get(of.role) if method == "static" else None,
            symmetric=of.symmetric, weights=of.weights, threads=of.threads,
            progress=partial(self.progress, "measuring sensitivity"),
        )  # fmt: skip
        return sorted(found, key=lambda part: -found[part])[: -(-len(found) // SPARED)]

    def _gated(self, of: Float, candidate: Candidate, reference: Ranked) -> Candidate:
        """The candidate with what the gate found of it."""
        ranked = self.ranked(candidate.open(of), candidate.method)
        gate = compare(reference, ranked, self.data.gate, seed=self.options.seed)
        return dataclasses.replace(candidate, trial=replace(candidate.trial, gate=gate))

    def ranked(self, engine: Engine, what: str) -> Ranked:
        """The lists that a target's plain beam search gives the users to compare on."""
        recommender = self._recommender(engine, None, f"of the {what} target")
        count = len(self.data.gate)
        told = partial(self._told, f"ranking with {what}", count)
        return ranked_lists(recommender, self.data.gate, told)

    def _told(self, what: str, total: int, done: int) -> None:
        self.progress(what, done, total)

    def _recommender(self, target: Engine, draft: Engine | None, name: str) -> Recommender:
        bundle = self.bundle
        catalog, trie = bundle.items()
        loaded = Loaded(
            catalog, trie, bundle.prompts(trie), target, draft, max_k=bundle.manifest.max_top_k, engine=name
        )
        return Recommender(
            loaded, planning=FixedPlanning(DraftShape() if draft else None),
            verification=Verification(scoring=bundle.manifest.scoring),
        )  # fmt: skip

    def draft(self, target: Engine) -> tuple[QuantizedGraph, Drafting | None]:
        """The fastest draft, and (where there are users for it) what it costs in acceptance, drafting for `target`."""
        of = self.prepare("draft")
        parts = self.parts(of.graph)
        candidates = self.candidates(of, self.kept("draft", parts))
        some = self.data.gate[:COMPARED_DRAFTS]
        if not some:
            return chosen(candidates, candidates[0]), None
        found = []
        for done, draft in enumerate((self.floats["draft"], candidates[0].open(of))):
            self.progress("comparing drafts", done, 2)
            recommender = self._recommender(target, draft, "that drafts are compared for")
            ranked_lists(recommender, some, lambda done: None)
            stats = recommender.stats
            found.append((acceptance_of(recommender), stats.target_calls / len(some)))
        drafting = Drafting(
            users=len(some), reference_acceptance=found[0][0], acceptance=found[1][0],
            reference_target_calls=found[0][1], target_calls=found[1][1],
        )  # fmt: skip
        return chosen(candidates, candidates[0]), drafting


def offered(order: Order, role: Role) -> tuple[Method, ...]:
    """The methods that make a role's precision in the order's backend."""
    backend, precision = order.backend, order.precisions[role]
    apart = "int8-weights" in backend.precisions  # weights alone are a precision of their own there
    ways = [method for method in get_args(Method) if method in backend.integers]
    return tuple(way for way in ways if not apart or (way in BITS) == (precision == "int8-weights"))


def ranges_file(role: Role) -> str:
    """The file of a role's ranges in an engine's folder."""
    return f"{role}-ranges.json"


def passed(candidate: Candidate) -> bool:
    """Whether it has been compared, and ranks as the original does."""
    return candidate.trial.gate is not None and candidate.trial.gate.passed


def chosen(tried: Sequence[Candidate], best: Candidate) -> QuantizedGraph:
    """The best one's graph, with all that was tried on record."""
    trials = tuple(candidate.trial for candidate in tried)
    return QuantizedGraph(best.graph.path, replace(best.graph.quantization, trials=trials))


def acceptance_of(recommender: Recommender) -> float:
    """Share of the nodes that were needed, at all depths, which had been drafted."""
    stats = recommender.stats  # depth 0 is the prompt's, which nobody drafts
    return float(stats.found[1:].sum() / max(int(stats.needed[1:].sum()), 1))
