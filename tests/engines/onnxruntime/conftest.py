"""What several test files of this folder share."""

import ctypes
from collections.abc import Iterator

import pytest

from device_cases import Pair
from device_engines import built
from specbeam.engines.base import Engine
from specbeam.engines.bundle.facts import Role
from specbeam.engines.bundle.items import Bundle
from specbeam.engines.memory import Lease, Pool
from specbeam.engines.onnxruntime.cpu import load_ort_engine
from specbeam.engines.onnxruntime.device import DeviceEngine
from tiny_bundle import Tiny


@pytest.fixture(scope="module", autouse=True)
def memory_is_full_of_nan() -> Iterator[None]:
    """Whatever is read before it is written poisons all that it touches."""
    with pytest.MonkeyPatch.context() as patch:
        take = Pool.take

        def poisoned(self: Pool, size: int) -> Lease:
            lease = take(self, size)
            ctypes.memset(lease.address, 0xFF, size)
            return lease

        patch.setattr(Pool, "take", poisoned)
        yield


@pytest.fixture(scope="module")
def pair(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    bundle, folder = Bundle.open(tiny.bundle), tmp_path_factory.mktemp("device")
    device: dict[Role, DeviceEngine] = {}
    plain: dict[Role, Engine] = {}
    roles: tuple[Role, ...] = ("target", "draft")
    for role in roles:
        device[role] = built(bundle, role, folder / role)
        plain[role] = load_ort_engine(
            bundle.graph(role), bundle.facts(role), device="cpu", precision="fp32", threads=1
        )  # fmt: skip
    return Pair(bundle, device, plain)
