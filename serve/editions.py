"""What a request is served by from beginning to end: one model with one catalog, both of a version."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import final

from ..runtime.options import Verification
from ..runtime.recommender import Recommender

REMEMBERED = 32  # ways to verify, beside the edition's own, whose searches are kept


@final
class Lane:
    """Requests that may share a call: of one edition, verified in one way."""

    def __init__(self, edition: "Edition", recommender: Recommender) -> None:
        self.edition, self.recommender = edition, recommender


@dataclass(eq=False)
class Edition:
    """One version of a model with one version of its catalog. Safe to share between threads."""

    model: str  # the model's name
    version: str  # the model's
    catalog: str  # the catalog's version
    recommender: Recommender
    _lanes: "OrderedDict[Verification, Lane]" = field(default_factory=OrderedDict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def lane(self, verification: Verification | None) -> Lane:
        """Where requests go that ask for such a verification, whatever their seeds; None: for the edition's own.

        Raises `OptionError` where this edition's engines cannot serve it.
        """
        own = replace(self.recommender.verification, seed=None)
        wanted = own if verification is None else replace(verification, seed=None)
        with self._lock:
            if wanted not in self._lanes:
                recommender = self.recommender if wanted == own else self.recommender.verifying(wanted)
                self._lanes[wanted] = Lane(self, recommender)
                if len(self._lanes) > REMEMBERED:
                    self._lanes.popitem(last=False)
            self._lanes.move_to_end(wanted)
            return self._lanes[wanted]
