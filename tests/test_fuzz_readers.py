"""Every reader of users' files on mutated inputs (a few hundred; benchmarks/fuzz_readers.py has more)."""

import pytest

from fuzz_readers import run, targets

TARGETS = targets()


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_gives_results_or_one_of_our_errors(tmp_path, name):
    if not TARGETS[name].seeds:
        pytest.skip("needs pyarrow")
    report = run(TARGETS[name], tmp_path, 300, 1, lambda done: None)
    assert report.kinds() == {}
    assert report.inputs == 300
    assert report.accepted
