"""Asks Triton by its own clients, HTTP's and gRPC's; run by an interpreter that has them, which has nothing of ours.

The first argument is a file: what to ask, and how many callers ask at once. Prints what was answered as JSON. Where it
names a file `until`, the requests are asked again and again until that file is there, and answers are counted; where it
says `cancel_after`, they are cancelled after so many seconds.
"""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import local
from time import sleep

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http

OUTPUTS = ("items", "titles", "scores", "positions")
KINDS = {"http": http, "grpc": grpc}
TYPES = {"items": "BYTES", "users": "BYTES", "item_ids": "INT64", "tokens": "INT64", "lengths": "INT64", "k": "INT64"}


def tensor(kind, name, values, datatype):
    array = np.array(values, object if datatype == "BYTES" else np.int64)
    made = kind.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def answered(kind, client, model, ask):
    inputs = [tensor(kind, name, values, ask.get("types", TYPES)[name]) for name, values in ask["inputs"].items()]
    try:
        answer = client.infer(
            model, inputs, parameters=ask.get("parameters"), timeout=ask.get("timeout"), request_id=ask.get("id", ""),
            model_version=ask.get("version", ""),
        )  # fmt: skip
    except Exception as error:
        return {"error": error.message(), "status": str(error.status())}
    response = answer.get_response()
    told = {"version": response["model_version"] if kind is http else response.model_version}
    for name in OUTPUTS:
        values = answer.as_numpy(name)
        told[name] = [[text.decode() for text in row] for row in values] if values.dtype == object else values.tolist()
    return told


class Asking:
    """Callers of one protocol, each with a client of its own."""

    def __init__(self, asked, name):
        self.kind, self.url, self.asked, self.own = KINDS[name], asked["urls"][name], asked, local()

    def __call__(self, ask):
        if not hasattr(self.own, "client"):
            self.own.client = self.kind.InferenceServerClient(self.url)
        return answered(self.kind, self.own.client, self.asked["model"], ask)

    def until(self, path):
        """Outcomes counted: versions, or errors."""
        counted = Counter()
        while not path.exists():
            for ask in self.asked["asks"]:
                found = self(ask)
                counted[found.get("version") or found["error"]] += 1
        return counted


def cancelled(asked):
    """Ask all at once over gRPC, and cancel what is not answered after so many seconds. What came of each."""
    client, told, futures = grpc.InferenceServerClient(asked["urls"]["grpc"]), Queue(), []
    for ask in asked["asks"]:
        inputs = [tensor(grpc, name, values, TYPES[name]) for name, values in ask["inputs"].items()]

        def done(result, error):
            told.put("answered" if error is None else error.message())

        futures.append(client.async_infer(asked["model"], inputs, done, parameters=ask.get("parameters")))
    sleep(asked["cancel_after"])
    for future in futures:
        future.cancel()
    return [told.get(timeout=60) for _ in futures]


def main(asked):
    told = {}
    if "cancel_after" in asked:
        return cancelled(asked)
    with ThreadPoolExecutor(2 * asked["callers"]) as pool:
        if "until" in asked:
            futures = [
                pool.submit(Asking(asked, name).until, Path(asked["until"]))
                for name in KINDS
                for _ in range(asked["callers"])
            ]
            return sum((each.result() for each in futures), Counter())
    for name in KINDS:
        with ThreadPoolExecutor(asked["callers"]) as pool:
            told[name] = list(pool.map(Asking(asked, name), asked["asks"]))
    return told


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
