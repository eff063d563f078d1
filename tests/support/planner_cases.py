"""Planners on costs by hand."""

from specbeam.runtime.planning.forecast import Policy


def drafts(policy: Policy) -> bool:
    return any(plan.widths for plan in policy)
