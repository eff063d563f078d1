"""Every reader of users' files on mutated inputs (a few hundred; benchmarks/reliability/fuzz.py makes many more)."""

import pytest

from benchmarks.reliability.fuzz_readers import reader_targets, targets
from fuzzing import fuzz


@pytest.mark.parametrize("name", targets())
def test_a_reader_gives_results_or_one_of_our_errors(tmp_path, name):
    found = {target.name: target for target in reader_targets(tmp_path)}
    if name not in found:
        pytest.skip("needs pyarrow")
    report = fuzz(found[name].use, found[name].inputs(300, 1))
    assert report.kinds() == {}
    assert report.inputs == 300
    assert report.accepted
