"""What is in a bundle, for people and for programs."""

from pathlib import Path

from ...catalog.errors import BundleError
from ..machine.gpus import used_gpu
from .default import default_fault, found_default
from .facts import EngineFacts, Gate, LatencyPoint, ModelFacts, Quantization
from .items import Manifest
from .measured import found_measurement, measured_gpus
from .model import ModelBundle
from .open import open_bundle
from .sealed import to_json
from .texts import TextManifest


def describe_json(path: Path) -> str:
    """As JSON, what `content` is."""
    return to_json(content(path)).decode().rstrip()


def content(path: Path) -> dict[str, object]:
    """The manifest and every engine's facts."""
    bundle = open_bundle(path)
    engines: dict[str, EngineFacts | dict[str, str]] = {}
    for name in bundle.engine_names():
        try:
            engines[name] = bundle.engine_facts(name)
        except BundleError as error:  # the others are told of all the same
            engines[name] = {"error": str(error)}
    return {
        "manifest": bundle.manifest, "engines": engines, "default_engine": found_default(bundle),
        "default_error": default_fault(bundle),
    }  # fmt: skip


def describe(path: Path) -> str:
    """The same as a few lines of text."""
    bundle = open_bundle(path)
    manifest = bundle.manifest
    size = sum(file.bytes for file in manifest.files.values())
    lines = [
        f"{path}: SpecBeam {manifest.specbeam_version}, schema {manifest.schema_version}, {size / 1e6:.1f} MB",
        f"  target     {_model(manifest.target)}",
        *(_text(manifest) if isinstance(manifest, TextManifest) else _items(manifest)),
    ]
    default = found_default(bundle)
    for name in bundle.engine_names():
        try:
            lines += _engine(bundle, name, default=name == default)
        except BundleError as error:  # the others are told of all the same
            lines.append(f"  engine     {name}: {error}")
    if (fault := default_fault(bundle)) is not None:
        lines.append(f"  default    {fault}")
    elif default is None and bundle.engine_names():
        lines.append("  default    none of them; set one with: specbeam build-engine ... --default")
    if not bundle.engine_names():
        lines.append(f"  engines    none; build one with: specbeam build-engine {path}")
    return "\n".join(lines)


def describe_engine(path: Path, name: str) -> str:
    """One engine as `describe` tells of it; raises `BundleError` where it is absent or damaged."""
    bundle = open_bundle(path)
    return "\n".join(line.removeprefix("  ") for line in _engine(bundle, name, default=name == found_default(bundle)))


def _items(manifest: Manifest) -> list[str]:
    prompt = manifest.prompt
    return [
        f"  draft      {_model(manifest.draft) if manifest.draft else 'none'}",
        f"  graphs     ONNX opset {manifest.opset}, {manifest.precision}",
        f"  requests   scoring {manifest.scoring} where they ask for none, at most {manifest.max_top_k} items a list",
        f"  catalog    {manifest.items:,} items, {manifest.identifiers:,} identifiers of at most "
        f"{manifest.identifier_length} tokens{_end(manifest.end_token)}, {manifest.catalog_tokens:,} distinct tokens",
        f"  prompt     {prompt.template!r}, separator {prompt.separator!r}, last {prompt.history_length} items, "
        f"at most {manifest.max_prompt_tokens} tokens",
    ]


def _text(manifest: TextManifest) -> list[str]:
    ends = ", ".join(map(str, manifest.end_tokens)) or "no token"
    return [
        f"  graphs     ONNX opset {manifest.opset}, {manifest.precision}",
        f"  writes     text, ended by {ends}; vocabulary {manifest.vocabulary:,}",
        f"  prompt     {manifest.prompt.prefix + '{prompt}' + manifest.prompt.suffix!r}",
    ]


def _model(facts: ModelFacts) -> str:
    encoder = "" if facts.encoder is None else f" behind an encoder of {facts.encoder.layers}"
    return (
        f"{facts.architecture}, {facts.parameters:,} parameters, {facts.layers} layers{encoder}, {facts.kv_heads} KV "
        f"heads of {facts.head_dim}, vocabulary {facts.vocabulary:,}, context {facts.context:,}"
    )


def _end(token: int | None) -> str:
    return " (no end token)" if token is None else f" (the end token {token} among them)"


def describe_choice(name: str, facts: EngineFacts) -> str:
    """What an engine is, how its graphs were quantized, and what that cost."""
    return "\n".join(_choice(name, facts))


def _choice(name: str, facts: EngineFacts, *, default: bool = False) -> list[str]:
    versions = ", ".join(f"{library} {version}" for library, version in facts.versions.items())
    lines = [f"  engine     {name}{', the default' * default} ({versions}, {facts.threads} threads)"]
    narrow = [role for role in facts.roles if facts.has_catalog_head(role)]
    if narrow:
        lines.append(f"    constrained scoring: the head has the catalog's columns alone ({', '.join(narrow)})")
    for role, role_facts in facts.roles.items():
        if role_facts.quantization is not None:
            lines += _quantization(role, role_facts.quantization, alone=role_facts.precision == "int8-weights")
    if facts.gate is not None:
        lines += _gate(facts.gate)
    if facts.drafting is not None:
        one = facts.drafting
        lines.append(
            f"    quantized draft: acceptance {one.acceptance:.1%} beside {one.reference_acceptance:.1%}, target calls "
            f"a request {one.target_calls:.2f} beside {one.reference_target_calls:.2f} ({one.users} requests)"
        )
    return lines


def _quantization(role: str, found: Quantization, *, alone: bool) -> list[str]:
    """alone: weights are integers, and activations never."""
    ranges = f", ranges by {found.ranges}" if found.ranges else ""
    smooth = f", SmoothQuant {found.smooth:g}" if found.smooth is not None else ""
    kept = f", {', '.join(found.kept)} in floating point" if found.kept else ""
    weights = ", weights alone" if alone else ""
    timed = "ms a call, " if any(trial.milliseconds for trial in found.trials) else ""
    lines = [f"    {role}: {found.method}{weights}{ranges}{smooth}{kept}; tried ({timed}divergence in nats):"]
    for trial in found.trials:
        name = ", ".join([trial.method, *(f"{part} kept" for part in trial.kept)])
        times = "".join(f"{shape} {milliseconds:.2f}, " for shape, milliseconds in trial.milliseconds.items())
        lines.append(f"      {name:<8} {times}{trial.divergence:.2g}{_verdict(trial.gate)}")
    return lines


def _verdict(gate: Gate | None) -> str:
    """What the gate said of one way of quantizing."""
    if gate is None:
        return ""
    if gate.passed:
        return "; passed the gate"
    low = gate.metrics["ndcg@10"].low
    change = "unknown" if low is None else f"{low:+.1%}"
    return f"; not passed: overlap@20 {gate.overlap['20']:.1%}, NDCG@10 at worst {change}"


def _gate(gate: Gate) -> list[str]:
    """Rankings beside the original's."""
    overlaps = ", ".join(f"@{k} {share:.1%}" for k, share in gate.overlap.items())
    passed = "passed" if gate.passed else "not passed"
    lines = [f"    gate {passed} on {gate.requests:,} requests ({gate.users:,} users): overlap {overlaps}"]
    for name, metric in gate.metrics.items():
        change = "" if metric.low is None else f", change {metric.low:+.1%} to {metric.high:+.1%} (95 %)"
        lines.append(f"      {name:<10} {metric.value:.4f} beside {metric.reference:.4f}{change}")
    return lines


def _measured_on(bundle: ModelBundle, name: str, facts: EngineFacts) -> list[str]:
    """Where an engine was measured that was built without a GPU: each kind of GPU measures for itself."""
    folder = bundle.path / "engines" / name
    if not facts.built_elsewhere or not (gpus := measured_gpus(folder, facts)):
        return []
    shown = found_measurement(folder, bundle.built_facts(name), bundle.finishing(name))
    here = "" if shown is None or used_gpu() is not None else ", which no GPU here tells to be this machine's"
    below = f"; below: {shown.gpu}{here}" if shown is not None else "; none of them is known to be this machine's"
    return [f"    measured on {', '.join(gpus)}{below}"]


def _engine(bundle: ModelBundle, name: str, *, default: bool) -> list[str]:
    """One engine: what it is, and milliseconds of a batch-1 call against cached and new tokens."""
    facts = bundle.engine_facts(name)
    lines = _choice(name, facts, default=default) + _measured_on(bundle, name, facts)
    for role, role_facts in facts.roles.items():
        if role_facts.max_difference is None:
            lines.append(
                f"    {role} ({role_facts.precision}): built without a GPU, and not compared or timed on this machine's"
            )
            continue
        points = [point for point in role_facts.latency if point.batch == 1]
        news = sorted({point.new for point in points})
        lines.append(
            f"    {role} ({role_facts.precision}): ms a call (batch 1), differs from the exported graph by "
            f"{role_facts.max_difference:.1g}"
        )
        lines.append("      cached \\ new " + "".join(f"{new:>9}" for new in news))
        for past in sorted({point.past for point in points}):
            row = {point.new: _milliseconds(point) for point in points if point.past == past}
            lines.append(f"      {past:>12} " + "".join(f"{row.get(new, ''):>9}" for new in news))
    return lines


def _milliseconds(point: LatencyPoint) -> str:
    """A call's time; "~" stands before one that was not timed."""
    return f"{'~' * point.interpolated}{point.milliseconds:.2f}"
