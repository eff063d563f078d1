"""Planners on costs by hand."""

from typing import Unpack

from specbeam.runtime.planning.forecast import Forecast
from specbeam.runtime.planning.plans import Policy, Situation


def drafts(policy: Policy) -> bool:
    return any(plan.widths for plan in policy)


def expected_milliseconds(policy: Policy, **situation: Unpack[Situation]) -> float:
    """The expected time to finish one batch under a policy."""
    return Forecast(**situation).of(policy).milliseconds
