"""Milliseconds of a call of the pair's models."""

from functools import partial

from benchmarks.hardware.kit.engines import proven
from benchmarks.hardware.kit.parity import ROLES
from benchmarks.hardware.kit.parts import Job, Steps
from benchmarks.hardware.kit.record import Row
from benchmarks.hardware.kit.users import pair
from specbeam.engines.bundle.facts import Role
from specbeam.engines.latency import LATER_TOKENS, ROWS, time_call
from specbeam.engines.machine.processors import available_threads
from specbeam.engines.registry import load_engine


def steps(job: Job) -> Steps:
    return {f"{engine}, {role}": partial(grid, job, engine, role) for engine in proven(job) for role in ROLES}


def grid(job: Job, engine: str, role: Role) -> list[Row]:
    """Medians, within the model's context and what a plan was built for."""
    bundle, sizes = pair(job), job.sizes
    facts = bundle.facts(role)
    loaded = load_engine(bundle, role, engine, threads=available_threads())
    plan = None if engine.startswith("torch") else bundle.engine_facts(engine).roles[role].tensorrt
    rows, found = ROWS, list[Row]()
    if plan is not None:
        rows = min(ROWS, plan.limits.max_nodes)
    for batch in sizes.batch_sizes:
        for past in sizes.past:
            for new in sizes.new:
                if past + new > facts.context or (past and new > LATER_TOKENS):
                    continue
                if plan is not None:
                    prompt, nodes = (past, new) if past else (new, 0)
                    limits = plan.limits
                    if batch > limits.max_batch or prompt > limits.max_prompt or nodes > limits.max_nodes:
                        continue
                taken = time_call(loaded, facts, batch, past, new, sizes.repeats, rows=rows)
                found.append({
                    "engine": engine, "role": role, "batch": batch, "cached": past, "new": new, "ms": taken,
                })  # fmt: skip
    return found
