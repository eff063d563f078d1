"""What an interrupted run left, changed at random: read as by the run that goes on with it."""

import hashlib
from pathlib import Path

import msgspec

from benchmarks.reliability.fuzz_mutations import Target, documents, raw_bytes
from specbeam.runtime.runs.inference import InferCounts
from specbeam.runtime.runs.journal import Journal
from specbeam.runtime.runs.log import JournalFiles, RunFacts, sealed_line

WHAT = ("facts", "marks", "batches")  # the records of a log


def journal_targets(folder: Path) -> list[Target]:
    """A log as bytes, and each of its records with a checksum that fits."""
    folder.mkdir(parents=True)
    told = RunFacts(verb="infer", bundle="a", engine="e", read={"histories 1": "h"}, options={"top_k": 9})
    records = (
        msgspec.json.encode(told),
        b'{"type":"mark","entries":2,"results":11,"rejects":0,"digests":["%s","%s"],"counts":{"served":2},"synced":true}'
        % (hashlib.sha256(b'{"line": 1}').hexdigest().encode(), hashlib.sha256().hexdigest().encode()),
        b'{"type":"batch","lines":[[2,false,{"line":3}],[3,true,{"line":4}]],"counts":{"served":1,"rejected":1}}',
    )

    def use_log(data: bytes) -> None:
        paths = JournalFiles.of(folder / "output")
        paths.results.write_bytes(b'{"line": 1}\n')
        paths.log.write_bytes(data)
        with Journal.open(folder / "output", told, InferCounts(), overwrite=False, warn=len) as journal:
            list(journal.results())

    def use_record(data: bytes) -> None:
        which = 0 if b'"run"' in data else 1 if b'"mark"' in data else 2
        use_log(b"".join(sealed_line(record) for record in (*records[:which], data, *records[which + 1 :])))

    found = [Target("journal, bytes", use_log, raw_bytes(b"".join(map(sealed_line, records))))]
    for what, data in zip(WHAT, records, strict=True):
        found += [
            Target(f"journal's {what}, resealed, bytes", use_record, raw_bytes(data)),
            Target(f"journal's {what}, resealed, values", use_record, documents(data, None)),
        ]
    return found
