"""Options of build-engine that TensorRT's plans have, in either flavour, and the backend that they make."""

import re
from typing import TYPE_CHECKING, Any

import click

from .options import PathType, flags, together

if TYPE_CHECKING:
    from ..engines.backend import Backend

SIZES = ("max_batch", "max_prompt", "max_nodes")
PLAN = ("workspace", "timing_cache", "version_compatible", "hardware_compatible", "compute_capability")

CAPABILITY_HELP = (
    "tensorrt-rtx: GPUs to compile for, e.g. 8.6,8.9,12.0. Default: 8.0, 8.6, 8.9, 12.0 and later; 7.5 has to be asked "
    "for."
)


def capabilities(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """A list such as 8.6,8.9."""
    if value is None:
        return None
    found = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    if not all(re.fullmatch(r"\d+\.\d", part) for part in found):
        raise click.BadParameter(f"got {value!r}; expected compute capabilities such as 8.6,8.9", context, option)
    return found


tensorrt_options = together(
    click.option("--max-batch", type=click.IntRange(1), help="tensorrt, -rtx: most requests in a call. Default: 8."),
    click.option(
        "--max-prompt", type=click.IntRange(1), help="tensorrt, -rtx: longest prompt. Default: full histories."
    ),
    click.option("--max-nodes", type=click.IntRange(1), help="tensorrt, -rtx: most nodes in a call. Default: 256."),
    click.option("--workspace", type=click.IntRange(1), metavar="MIB", help="tensorrt, -rtx: scratch. Default: all."),
    click.option("--timing-cache", type=PathType, help="tensorrt: keeps kernel timings between builds."),
    click.option("--version-compatible", is_flag=True, default=None, help="tensorrt: for later versions, and lean."),
    click.option("--hardware-compatible", is_flag=True, default=None, help="tensorrt: for other GPUs, too."),
    click.option("--compute-capability", metavar="LIST", callback=capabilities, help=CAPABILITY_HELP),
)


def backend_of(name: str, device: str | None, options: dict[str, Any]) -> "Backend":
    """The backend, with the options that are its own; raises where others' were given."""
    from ..catalog.errors import OptionError
    from ..engines.registry import find_backend

    own = {key: options[key] for key in (*SIZES, *PLAN) if key in options}
    if name == "onnxruntime":
        if own:
            raise OptionError(
                f"{flags(own)}: for --backend tensorrt and tensorrt-rtx only. Leave that out, or build with one."
            )
        return find_backend(name, device)
    sizes = {key: own[key] for key in SIZES if key in own}
    plan = {key: own[key] for key in PLAN if key in own}
    if "workspace" in plan:
        plan["workspace"] <<= 20
    if "compute_capability" in plan:
        plan["compute_capabilities"] = plan.pop("compute_capability")
    if "timing_cache" in plan:
        plan["timing_cache"] = str(plan["timing_cache"])
    from ..engines.tensorrt.backend import CallSizes
    from ..engines.tensorrt.build import TrtOptions

    return find_backend(name, device, sizes=CallSizes(**sizes), options=TrtOptions(**plan))
