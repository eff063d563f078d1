"""An engine's numbers and lists beside those of float32 on the CPU."""

from collections.abc import Callable
from functools import partial
from time import perf_counter

from benchmarks.hardware.kit.engines import LISTS, RTX, build, name_of, opened, precisions, targets
from benchmarks.hardware.kit.parts import Job, PassedOver, Steps, Wrong
from benchmarks.hardware.kit.record import Row
from benchmarks.hardware.kit.users import kept_users, largest_gap, overlap, pair, ranked, reference, same
from specbeam.catalog.temporaries import temporary_directory
from specbeam.engines.build import TOLERANCE, exported_engine
from specbeam.engines.bundle.facts import Role
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.compare import Refusal, answers, cases, difference
from specbeam.engines.machine.processors import available_threads
from specbeam.engines.registry import load_engine
from specbeam.evaluate.figures import ranking_fault

MODE = "strict, full"
FLAVOURED = ("tensorrt", RTX)  # backends that keep what was compiled
ROLES: tuple[Role, ...] = ("target", "draft")


def steps(job: Job, backend: str) -> Steps:
    """Of every precision: built (ahead of time, and finished here), its numbers compared, its lists compared."""
    if backend == "torch" and not (pair(job).path / "target" / "checkpoint").is_dir():
        raise PassedOver("the pair was exported without its checkpoints, which are what PyTorch runs")
    found = dict[str, Callable[[], list[Row]]]()
    for precision in precisions(job, backend):
        if backend != "torch":  # whose graph is the checkpoint
            found[f"{precision}: build"] = partial(built, job, backend, precision)
        if backend in FLAVOURED:
            found[f"{precision}: layers"] = partial(layers, job, backend, precision)
        if backend == RTX and job.device == "cpu":
            found[f"{precision}: run"] = nothing_runs_it
            continue
        if backend == RTX:
            found[f"{precision}: finish"] = partial(finished, job, precision)
        found[f"{precision}: numbers"] = partial(numbers, job, backend, precision)
        found[precision + LISTS] = partial(lists, job, backend, precision)
    return found


def built(job: Job, backend: str, precision: str) -> list[Row]:
    bundle = pair(job)
    start = perf_counter()
    name = build(job, bundle, backend, precision)
    size = sum(file.bytes for file in bundle.engine_facts(name).files.values())
    seconds = round(perf_counter() - start, 1)
    return [{"built": name, "for": built_for(job, backend, precision), "seconds": seconds, "MB": round(size / 1e6, 2)}]


def built_for(job: Job, backend: str, precision: str) -> str:
    """The compute capabilities that an engine runs on, where it is for some."""
    if backend == RTX:
        return " ".join(targets(precision))
    return job.setup.compute_capability or "" if backend == "tensorrt" else ""


def nothing_runs_it() -> list[Row]:
    raise PassedOver("it was compiled without a GPU; running it takes one")


def finished(job: Job, precision: str) -> list[Row]:
    """What was compiled ahead of time, compared and timed on this GPU."""
    from specbeam.engines.finish import finish_engine

    bundle = pair(job)
    name = there(job, bundle, RTX, precision)
    start = perf_counter()
    finish_engine(bundle, name)
    return [{"finished": name, "seconds": round(perf_counter() - start, 1)}]


def layers(job: Job, backend: str, precision: str) -> list[Row]:
    """What the compiler made of the graphs, by optimization profile."""
    from specbeam.engines.tensorrt.compiled import compiled_engine

    bundle = pair(job)
    name = there(job, bundle, backend, precision)
    return [
        {
            "kernels of": name, "role": role, "profile": profile.profile, "attentions": compiled.attentions,
            "fused attentions": profile.fused, "matrix products": sum(profile.products.values()),
            "products of attentions": sum(profile.attention_products.values()),
            "other kernels": sum(profile.others.values()), "types of products": ", ".join(profile.products),
        }
        for role, compiled in compiled_engine(bundle, name).roles.items()
        for profile in compiled.profiles
    ]  # fmt: skip


def there(job: Job, bundle: Bundle, backend: str, precision: str) -> str:
    name = name_of(job, backend, precision)
    if backend != "torch" and name not in bundle.engine_names():
        raise PassedOver(f"{name} is not built")
    return name


def numbers(job: Job, backend: str, precision: str) -> list[Row]:
    """The largest difference of a log-probability to the exported graph."""
    bundle, threads = pair(job), available_threads()
    name, rows = there(job, bundle, backend, precision), list[Row]()
    for role in ROLES:
        engine = load_engine(bundle, role, name, threads=threads)
        plan = None if backend == "torch" else bundle.engine_facts(name).roles[role].tensorrt
        limits = None if plan is None else plan.limits
        with temporary_directory(job.work / f"compared-{name}") as scratch:
            original = exported_engine(bundle, role, scratch, threads)
            refuse = Refusal(bundle, role, precision)  # type: ignore[arg-type]
            said = answers(original, cases(bundle.facts(role), bundle.samples(), limits), refuse)
            worst = difference(said, engine, refuse)
        rows.append(
            {"numbers of": name, "role": role, "largest difference": worst, "allowed": TOLERANCE.get(precision)}
        )
    worst = max(float(row["largest difference"]) for row in rows)
    if precision == "fp32" and not worst <= TOLERANCE[precision]:  # builds have looked at half precision themselves
        raise Wrong("its log-probabilities differ by more than is allowed", rows)
    return rows


def lists(job: Job, backend: str, precision: str) -> list[Row]:
    """Plain beam search, beside the same on the CPU in float32."""
    bundle, users = pair(job), kept_users(job)
    name, rows = there(job, bundle, backend, precision), list[Row]()
    recommender, faults = opened(bundle, name, drafting="none"), list[str]()
    for k in job.sizes.top_k:
        ours = ranked(recommender.recommend(users.histories, k, users=users.names))
        theirs = reference(job, MODE, k)
        rows.append({
            "engine": name, "K": k, "lists": len(ours), "the same": same(ours, theirs),
            "overlap": overlap(ours, theirs), "largest difference of a score": largest_gap(ours, theirs),
        })  # fmt: skip
        faults += [fault for x, y in zip(ours, theirs, strict=True) if (fault := ranking_fault(x, y))]
    if precision == "fp32" and faults:
        raise Wrong(f"{len(faults)} lists in float32 are not those of the CPU beyond near-ties: {faults[0]}", rows)
    return rows
