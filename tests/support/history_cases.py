"""Files of histories, as tests write and read them."""

from dataclasses import replace

from specbeam.catalog import HistoryRequest, Reject, read_histories

Request = HistoryRequest


def read(folder, name, content, **options):
    path = folder / name
    path.write_bytes(content)
    outcomes = list(read_histories([path], **options))
    assert all(outcome.source == str(path) for outcome in outcomes)
    return unsourced(outcomes)


def unsourced(outcomes):
    """The outcomes, the requests without their file's name."""
    return [replace(outcome, source="") if isinstance(outcome, Request) else outcome for outcome in outcomes]


def rejected(outcome, line, reason, raw, source):
    assert isinstance(outcome, Reject)
    assert (outcome.line, outcome.raw, outcome.source) == (line, raw, str(source))
    assert reason in outcome.reason
    return True
