"""What serving learned of drafts, kept in the user's cache for the next process that serves the same by the same."""

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Annotated, final

import msgspec
import numpy as np

from ...catalog.bounds import Positive, Whole
from ...catalog.errors import SpecBeamError
from ...catalog.files import Frozen, whole_file
from ...catalog.user_cache import OFF, VARIABLE, prune, user_cache
from ...engines.bundle.facts import ENGINE_FACTS
from ...engines.bundle.items import Bundle
from ...engines.bundle.sealed import Sealed, read_sealed, sealed
from ..options import Drafting, Verification
from ..types import DrafterKind, Mode, ScoringKind
from .acceptance import AcceptanceCounts, packed, unpacked
from .budget import RESERVE, Waiting
from .costs import SIZES
from .estimates import Counts
from .planner import Planner
from .plans import Learned, Paces
from .policy import Planning

KEPT_SCHEMA = 1
ENDING = ".learned.json"
MOST_FILES = 64  # in the cache: those written last
LARGEST = 16 << 20  # bytes of a file that can be ours
WEIGHT = 40  # requests of a K that what was learned earlier stands for at most: a change is found out by as many more
FIRST_S, SELDOM_S = 5.0, 60.0  # seconds of serving until it is written: first, then twice as many each time, up to
FURTHEST = 4.0  # from what is believed, that a pace may be

REMEDY = f"{VARIABLE} names another folder, or says {OFF}"

Pace = Annotated[float, msgspec.Meta(ge=1 / FURTHEST, le=FURTHEST)]
SizedPace = Annotated[tuple[Pace, ...], msgspec.Meta(min_length=SIZES, max_length=SIZES)]
Standing = Annotated[float, msgspec.Meta(ge=0, le=RESERVE)]


class Subject(Frozen, frozen=True):
    """All that must be the same where what was learned is to hold."""

    bundle: str  # the manifest's checksum
    engine: str
    facts: str  # the hash of engine.json, and of whatever `specbeam tune` found for the engine
    mode: Mode
    scoring: ScoringKind | None
    drafter: DrafterKind | None
    pool: str | None  # its checksum
    reuse: bool
    threads: Positive
    machine: str
    schema: int = KEPT_SCHEMA

    @classmethod
    def of(
        cls, bundle: Bundle, engine: str, verification: Verification, drafting: Drafting, *, threads: int
    ) -> "Subject":
        """drafting, verification: as they were chosen."""
        folder, facts, pool = bundle.path / "engines" / engine, hashlib.sha256(), drafting.opened_pool()
        for file in [folder / ENGINE_FACTS, *sorted(folder.glob("tuning-*.json"))]:
            facts.update(hashlib.sha256(file.read_bytes()).digest())
        return cls(
            bundle=bundle.manifest.checksum, engine=engine, facts=facts.hexdigest(), mode=verification.mode,
            scoring=verification.scoring, drafter=drafting.drafter, pool=None if pool is None else pool.checksum,
            reuse=drafting.reuse, threads=threads, machine=platform.node(),
        )  # fmt: skip

    @property
    def file(self) -> str:
        """The name of its file."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32] + ENDING


class KeptTrials(Frozen, frozen=True):
    """See `Trials`."""

    k: Positive
    left: Whole  # requests until drafts are tried again
    wait: Positive


class KeptPaces(Frozen, frozen=True):
    """See `Paces`."""

    target: SizedPace
    draft: SizedPace
    host: Pace

    @classmethod
    def of(cls, paces: Paces) -> "KeptPaces":
        """None further from what is believed than may be."""
        target, draft = (tuple(np.clip(each, 1 / FURTHEST, FURTHEST).tolist()) for each in (paces.target, paces.draft))
        return cls(target, draft, min(max(paces.host, 1 / FURTHEST), FURTHEST))


class Kept(Sealed, frozen=True, kw_only=True):
    """What was learned, as a file."""

    subject: Subject
    acceptance: AcceptanceCounts  # of what was served, not of what was tuned
    paces: KeptPaces
    trials: tuple[KeptTrials, ...]
    standing: Standing

    def learned(self, length: int) -> Learned:
        """As a planner takes it, for identifiers of so many tokens; raises `SpecBeamError` for damaged counts."""
        counts = {k: each.capped(WEIGHT) for k, each in unpacked(self.acceptance, length).items()}
        paces = Paces(self.paces.target, self.paces.draft, self.paces.host)
        return Learned(counts, paces, {t.k: Waiting(t.left, t.wait) for t in self.trials}, self.standing)


@final
class Memory:
    """What one planner begins with, and leaves. Nothing that fails here ever stops serving: see `fault`.

    Two processes never damage a file, which is replaced as a whole. Each adds what it counted to what is there; of two
    that do so in the same moment, the later one's is kept.
    """

    def __init__(self, planner: Planner, subject: Subject, folder: Path) -> None:
        """Tell the planner what earlier processes learned; folder: which need not be there."""
        self.path, self.fault = folder / subject.file, ""
        self._planner, self._subject, self._lock = planner, subject, Lock()
        earlier = self._earlier()
        self.requests: int | None = None  # that are known from earlier processes; None: there was no file
        if earlier is not None:
            planner.recall(earlier)
            self.requests = sum(each.requests for each in earlier.counts.values())
        self._kept = planner.learned()
        self._wait, self._due = FIRST_S, monotonic() + FIRST_S

    @classmethod
    def of(
        cls, planning: Planning, bundle: Bundle, engine: str, verification: Verification, drafting: Drafting, *,
        threads: int,
    ) -> "Memory | None":  # fmt: skip
        """None where nothing is to be kept, or there is nothing to learn or no place."""
        folder = user_cache()
        if not (drafting.keep and isinstance(planning, Planner)) or folder is None:
            return None
        return cls(planning, Subject.of(bundle, engine, verification, drafting, threads=threads), folder)

    def now_and_then(self) -> None:
        """Keep what was learned where that is due, and planning has not taken its share of the time."""
        if monotonic() >= self._due and self._planner.effort.may_look:
            self.keep()
            self._wait = min(2 * self._wait, SELDOM_S)
            self._due = monotonic() + self._wait

    def keep(self) -> str:
        """Keep what was learned since it was kept last; returns `fault`."""
        if not self._lock.acquire(blocking=False):
            return self.fault
        try:
            with self._planner.effort.spent():
                self._write(self._planner.learned())
        except (SpecBeamError, OSError, msgspec.ValidationError) as error:
            self.fault = f"what was learned of drafts is not kept for the next run: {self.path}: {error} ({REMEDY})"
        finally:
            self._lock.release()
        return self.fault

    def _write(self, learned: Learned) -> None:
        if learned == self._kept:  # counts are replaced, never changed
            return
        if self.path.is_dir():
            raise SpecBeamError("a folder is in its place")
        earlier = self._earlier()
        counts = {} if earlier is None else dict(earlier.counts)
        for k, each in learned.counts.items():
            new = each - self._kept.counts[k] if k in self._kept.counts else each
            counts[k] = (counts[k] + new if k in counts else new).capped(WEIGHT)
        with whole_file(self.path, replace=True) as file:
            file.write(sealed(self._file(learned, counts)))
        prune(self.path.parent, ENDING, MOST_FILES)
        self._kept = learned

    def _file(self, learned: Learned, counts: Mapping[int, Counts]) -> Kept:
        return Kept(
            schema_version=KEPT_SCHEMA, subject=self._subject, acceptance=packed(counts),
            paces=KeptPaces.of(learned.paces),
            trials=tuple(KeptTrials(k=k, left=left, wait=wait) for k, (left, wait) in learned.trials.items()),
            standing=min(max(learned.standing, 0.0), RESERVE),
        )  # fmt: skip

    def _earlier(self) -> Learned | None:
        """What is there, if it can be used."""
        try:
            if not self.path.is_file():
                return None
            if self.path.stat().st_size > LARGEST:
                self.fault = f"{self.path} is no file of what earlier runs learned: it is too large ({REMEDY})"
                return None
            kept = read_sealed(self.path, Kept, "specbeam infer, which does so by itself", KEPT_SCHEMA)
            return kept.learned(self._planner.acceptance.length) if kept.subject == self._subject else None
        except (SpecBeamError, OSError) as error:
            self.fault = f"what earlier runs learned of drafts is not used: {self.path}: {error} ({REMEDY})"
            return None
