"""Why a policy is what it is, as a table for people."""

from .forecast import Forecast
from .plans import Plan, Policy, Situation


def rationale(policy: Policy, situation: Situation) -> str:
    """A policy as a table for people: what a batch takes from every depth on under each kind of plan there.

    The plans at depths below are those of the policy.
    """
    rows: list[tuple[str, ...]] = [("depth", "nothing", "enumerate", "best draft", "chosen")]
    for s, weighed in enumerate(Forecast(**situation).weighed(policy)):
        every = "-" if weighed.enumerate is None else f"{weighed.enumerate:.2f}"
        draft, chosen = ("-" if one is None else f"{one[0]:.2f} ({_named(one[1])})" for one in weighed[2:])
        rows.append((str(s), f"{weighed.nothing:.2f}", every, draft, chosen))
    sizes = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(size) for cell, size in zip(row, sizes, strict=True)) for row in rows]
    batch, prompt, width = situation["batch"], situation["prompt"], situation["width"]
    return "\n".join([f"Expected ms from each depth on: batch {batch}, prompt {prompt}, top {width}", *lines])


def _named(plan: Plan) -> str:
    drafted = "draft " + "+".join(map(str, plan.widths)) if plan.widths else "nothing"
    return "enumerate" if plan.enumerate else drafted
