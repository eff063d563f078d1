"""Requests on their way, from C: waiting, cancelling, being told, closing and ending meanwhile."""

import json

import pytest

from cpp_library import Library, told
from specbeam.serve.embedded import Status
from tiny_bundle import Tiny

pytestmark = pytest.mark.services
every_policy = pytest.mark.parametrize("policy", ["gathered", "in-flight"])


def settings(policy: str) -> str:
    return json.dumps({"threads": 1, "batch_size": 4, "policy": policy})


@every_policy
@pytest.mark.parametrize("case", [
    "timeouts", "cancelling", "several_threads_wait", "notices", "freed_on_their_way", "closed_on_their_way",
    "priorities", "freed_where_it_ends",
])  # fmt: skip
def test_it_ends_as_it_should(library: Library, tiny: Tiny, case: str, policy: str) -> None:
    told(library.program("pending.cpp"), tiny.bundle, settings(policy), case)


@every_policy
def test_the_end_of_the_process_refuses_what_is_on_its_way(library: Library, tiny: Tiny, policy: str) -> None:
    printed = told(library.program("pending.cpp"), tiny.bundle, settings(policy), "left_on_their_way").split()
    assert len(printed) == 200  # each is told
    assert set(printed) <= {"0", str(int(Status.CLOSED))}
    assert printed.count(str(int(Status.CLOSED))) > 100
