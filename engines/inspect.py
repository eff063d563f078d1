"""What is in a bundle, for people and for programs."""

from pathlib import Path

from .bundle import Bundle, EngineFacts, ModelFacts, to_json


def describe_json(path: Path) -> str:
    """The manifest and every engine's facts as one JSON object."""
    bundle = Bundle.open(path)
    engines = {name: bundle.engine_facts(name) for name in bundle.engine_names()}
    return to_json({"manifest": bundle.manifest, "engines": engines}).decode().rstrip()


def describe(path: Path) -> str:
    """The same as a few lines of text."""
    bundle = Bundle.open(path)
    manifest, prompt = bundle.manifest, bundle.manifest.prompt
    size = sum(file.bytes for file in manifest.files.values())
    lines = [
        f"{path}: SpecRec {manifest.specrec_version}, schema {manifest.schema_version}, {size / 1e6:.1f} MB",
        f"  target     {_model(manifest.target)}",
        f"  draft      {_model(manifest.draft) if manifest.draft else 'none'}",
        f"  graphs     ONNX opset {manifest.opset}, {manifest.precision}",
        f"  requests   scoring {manifest.scoring} where they ask for none, at most {manifest.max_top_k} items a list",
        f"  catalog    {manifest.items:,} items, {manifest.identifiers:,} identifiers of at most "
        f"{manifest.identifier_length} tokens{_end(manifest.end_token)}, {manifest.catalog_tokens:,} distinct tokens",
        f"  prompt     {prompt.template!r}, separator {prompt.separator!r}, last {prompt.history_length} items, "
        f"at most {manifest.max_prompt_tokens} tokens",
    ]
    for name in bundle.engine_names():
        lines += _engine(name, bundle.engine_facts(name))
    if not bundle.engine_names():
        lines.append(f"  engines    none; build one with: specrec build-engine {path}")
    return "\n".join(lines)


def _model(facts: ModelFacts) -> str:
    return (
        f"{facts.architecture}, {facts.parameters:,} parameters, {facts.layers} layers, {facts.kv_heads} KV heads of "
        f"{facts.head_dim}, vocabulary {facts.vocabulary:,}, context {facts.context:,}"
    )


def _end(token: int | None) -> str:
    return " (no end token)" if token is None else f" (the end token {token} among them)"


def _engine(name: str, facts: EngineFacts) -> list[str]:
    """One engine: versions, and milliseconds of a batch-1 call against cached and new tokens."""
    versions = ", ".join(f"{library} {version}" for library, version in facts.versions.items())
    lines = [f"  engine     {name} ({versions}, {facts.threads} threads)"]
    for role, role_facts in facts.roles.items():
        points = [point for point in role_facts.latency if point.batch == 1]
        news = sorted({point.new for point in points})
        lines.append(
            f"    {role}: ms a call (batch 1), differs from the exported graph by {role_facts.max_difference:.1g}"
        )
        lines.append("      cached \\ new " + "".join(f"{new:>9}" for new in news))
        for past in sorted({point.past for point in points}):
            row = {point.new: point.milliseconds for point in points if point.past == past}
            lines.append(f"      {past:>12} " + "".join(f"{row[new]:>9.2f}" if new in row else " " * 9 for new in news))
    return lines
