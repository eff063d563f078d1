"""What the compiler made of a graph, counted: fused attentions, matrix products, other kernels, by element types."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from ...catalog.files import Frozen
from .layers import Layer

Sort = Literal["attention", "product", "other", "step"]
EXAMPLES = 3  # nodes that are named where there are more

# TensorRT's LayerTypes. Of what has a kernel, some carry no tactic: it is compiled when the engine is loaded.
_PRODUCTS = ("gemm", "matrixmultiply", "matmul", "fullyconnected")
_STEPS = frozenset({"cast", "constant", "noop", "reshape", "shapehosttodevice", "shape_call", "signal", "wait"})
_FUSED = re.compile(r"gem[mv]_mha|fmha")  # attention kernels: _gemm_mha_v2, _gemv_mha_v1, fmha_v2_flash_attention_...
_FLOATS = ("fp32", "bf16", "fp16", "fp8", "fp4")
_QUANTIZED = ("int8", "int4")  # the other integers are ids, places and sizes


class ProfileKernels(Frozen, frozen=True):
    """What one optimization profile of a graph runs; kernels by the element types that they read and write."""

    profile: str
    attention: dict[str, int]  # kernels that are a whole attention: scores, mask, softmax and values
    attention_products: dict[str, int]  # matrix products of attentions without such a kernel
    products: dict[str, int]  # other matrix products, with what was fused into them
    others: dict[str, int]
    steps: int  # layers between kernels: shapes, synchronization
    not_fused: int  # attentions of the model without a kernel of their own
    not_fused_nodes: tuple[str, ...]  # the graph's nodes of those, where the compiler names them

    def described(self) -> list[str]:
        """Lines of text."""
        split = f", {_told(self.attention_products)} of attentions" if self.attention_products else ""
        lines = [
            f"{self.profile}: fused attentions {_told(self.attention)}; matrix products {_told(self.products)}{split}; "
            f"other kernels {_told(self.others)}; {self.steps} steps without a kernel"
        ]
        if self.not_fused:
            more = ", ..." if len(self.not_fused_nodes) > EXAMPLES else ""
            named = f" ({', '.join(self.not_fused_nodes[:EXAMPLES])}{more})" if self.not_fused_nodes else ""
            lines.append(f"  not fused: {self.not_fused} of {self.not_fused + self.fused} attentions{named}")
        return lines

    @property
    def fused(self) -> int:
        """Attention kernels."""
        return sum(self.attention.values())


def count_kernels(layers: Sequence[Layer], attentions: int, profiles: Sequence[str] = ()) -> tuple[ProfileKernels, ...]:
    """What each profile of a plan runs.

    attentions: of the model, one a layer; profiles: their names, in the plan's order. Of an attention that was written
    out, both products (of queries with keys, of shares with values) name its node, and both read two results of other
    layers and no weights; so does a product whose weights another kernel unpacked, but it has its node alone.
    """
    numbers = range(max([len(profiles), *(layer.profile + 1 for layer in layers)]))
    return tuple(
        _counted(
            profiles[number] if number < len(profiles) else f"profile {number}",
            [layer for layer in layers if layer.profile == number], attentions,
        )
        for number in numbers
    )  # fmt: skip


def sort_of(layer: Layer) -> Sort:
    """What a layer is, by its name, kind and tactic."""
    kind = layer.kind.lower()
    if _FUSED.search(f"{layer.name} {layer.tactic}"):
        return "attention"
    if any(word in kind for word in _PRODUCTS) or "Fc" in _fused_operators(layer.name):
        return "product"
    return "step" if kind in _STEPS and not layer.tactic else "other"


def types_of(layer: Layer) -> str:
    """Element types that a layer computes with.

    Of a product its operands', each by the narrowest type (beside it are scales, and what was fused into it): "fp16",
    "int8", "fp16 x int4" where the weights' is another. Of others all of them, the widest first: "fp32+fp16". Ids,
    places and sizes beside numbers are left out; a layer of those alone has "int", one of unknown types "?".
    """
    if sort_of(layer) == "product":
        operands = [_numbers(types)[-1] for types in (layer.inputs, layer.weights) if _numbers(types)]
        return " x ".join(dict.fromkeys(operands)) or "?"
    found = (*layer.inputs, *layer.weights, *layer.outputs)
    return "+".join(_numbers(found)) or ("int" if {*found} - {"?"} else "?")


def _numbers(types: Sequence[str]) -> list[str]:
    """Those of `types` that are no ids, places or sizes, the widest first."""
    return [name for name in (*_FLOATS, *_QUANTIZED) if name in types]


def _counted(profile: str, layers: Sequence[Layer], attentions: int) -> ProfileKernels:
    sorts = {id(layer): sort_of(layer) for layer in layers}
    fused = [layer for layer in layers if sorts[id(layer)] == "attention"]
    products = [layer for layer in layers if sorts[id(layer)] == "product"]
    weightless = [layer for layer in products if not layer.weights and len(layer.inputs) > 1]
    shared = Counter(node for layer in weightless for node in layer.nodes)
    nodes = {node for node, times in shared.items() if times > 1}
    parts = [layer for layer in weightless if nodes.intersection(layer.nodes) or (layer.kind and not layer.nodes)]
    whole = {node for layer in fused for node in layer.nodes}
    return ProfileKernels(
        profile=profile, attention=_by_types(fused), attention_products=_by_types(parts),
        products=_by_types(layer for layer in products if layer not in parts),
        others=_by_types(layer for layer in layers if sorts[id(layer)] == "other"),
        steps=sum(sort == "step" for sort in sorts.values()), not_fused=max(0, attentions - len(fused)),
        not_fused_nodes=tuple(node for node in shared if node in nodes - whole),
    )  # fmt: skip


def _by_types(layers: Iterable[Layer]) -> dict[str, int]:
    return dict(Counter(map(types_of, layers)).most_common())


def _fused_operators(name: str) -> list[str]:
    """Of a kernel that the compiler wrote, such as __myl_FcAdd_myl1_12: Fc, Add."""
    begun = re.match(r"__myl_([A-Za-z]+)", name)
    return re.findall(r"[A-Z][a-z]+", begun[1]) if begun else []


def _told(counts: dict[str, int]) -> str:
    """Such as "6 fp16", or "12 (10 fp16, 2 fp32)"."""
    parts = [f"{number} {types}" for types, number in counts.items()]
    return "0" if not parts else parts[0] if len(parts) == 1 else f"{sum(counts.values())} ({', '.join(parts)})"
