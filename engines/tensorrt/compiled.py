"""inspect --engine NAME --layers: what the compiler made of an engine's graphs, as its folder keeps it."""

from functools import partial
from typing import get_args

from ...catalog.errors import EngineError
from ...catalog.files import Frozen
from ..bundle.checksums import check_file
from ..bundle.facts import EnginePrecision, Role
from ..bundle.model import ModelBundle
from .flavour import FLAVOURS
from .kernels import ProfileKernels, count_kernels
from .layers import ENCODER_LAYERS, LAYERS, Layer, read_layers
from .profiles import READING


class CompiledRole(Frozen, frozen=True):
    """One graph of an engine."""

    precision: EnginePrecision
    attentions: int  # of the model, one a layer; of a decoder that an encoder reads for, two
    profiles: tuple[ProfileKernels, ...]
    layers: tuple[Layer, ...]  # all of them, in the order in which the compiler lists them


class CompiledEngine(Frozen, frozen=True):
    """An engine's graphs."""

    engine: str
    compiler: str  # "TensorRT for RTX 1.7.1.116"
    compiled_for: tuple[str, ...]  # compute capabilities, where it was compiled ahead of time
    roles: dict[Role, CompiledRole]
    encoders: dict[Role, CompiledRole]  # of those whose prompts are read by one

    def described(self) -> str:
        """A few lines of text: kernels by role and optimization profile."""
        targets = f" for compute capability {', '.join(self.compiled_for)}" if self.compiled_for else ""
        lines = [f"{self.engine}: what {self.compiler} made of it{targets}"]
        encoders = {f"{role}'s encoder": compiled for role, compiled in self.encoders.items()}
        for role, compiled in (self.roles | encoders).items():
            lines.append(f"  {role}, {compiled.precision}: {len(compiled.layers)} layers")
            if not any(layer.kind for layer in compiled.layers):
                lines.append("    their kinds are not known: the plan was built without its layers' details")
                continue
            lines += [f"    {line}" for profile in compiled.profiles for line in profile.described()]
        return "\n".join(lines)


def compiled_engine(bundle: ModelBundle, name: str) -> CompiledEngine:
    """What is kept of a TensorRT engine's layers. Raises `EngineError` where nothing is, with what to do then."""
    facts = bundle.engine_facts(name)
    roles, encoders = dict[Role, CompiledRole](), dict[Role, CompiledRole]()
    for role in (role for role in get_args(Role) if role in facts.roles):
        own, model = facts.roles[role], bundle.facts(role)
        if own.tensorrt is None or facts.backend not in FLAVOURS:
            raise EngineError(
                f"{name} is an engine of {facts.backend}, of which no layers are kept; expected one of TensorRT, such "
                f"as: specbeam build-engine {bundle.path} --backend tensorrt-rtx"
            )
        kept = partial(_compiled, bundle, name, role)
        attentions = model.layers if model.encoder is None else 2 * model.layers
        roles[role] = kept(LAYERS, attentions, own.tensorrt.profiles)
        if model.encoder is not None:
            encoders[role] = kept(ENCODER_LAYERS, model.encoder.layers, (READING,))
    plan = facts.roles["target"].tensorrt
    assert plan is not None
    compiler = f"{FLAVOURS[facts.backend].title} {plan.version}"
    return CompiledEngine(
        engine=name, compiler=compiler, compiled_for=plan.compiled_for, roles=roles, encoders=encoders
    )  # fmt: skip


def _compiled(
    bundle: ModelBundle, name: str, role: Role, file: str, attentions: int, profiles: tuple[str, ...]
) -> CompiledRole:
    """What is kept of a plan, once it is what engine.json says."""
    facts = bundle.engine_facts(name)
    folder, listed, again = bundle.path / "engines" / name, f"{role}/{file}", bundle.rebuild(name, facts)
    if listed in facts.files:
        check_file(folder / listed, facts.files[listed], again, bundle.path)
    layers = read_layers(folder / role, again, file)
    counted = count_kernels(layers, attentions, profiles)
    return CompiledRole(
        precision=facts.roles[role].precision, attentions=attentions, profiles=counted, layers=layers
    )  # fmt: skip
