"""Asks a server by `tritonclient`, HTTP or gRPC; run by an interpreter that has it, which has nothing of ours.

The first argument is a file: what to ask. Prints items and scores of every user as JSON.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from threading import local

import numpy as np


def tensor(triton, name: str, values: np.ndarray):
    made = triton.InferInput(name, list(values.shape), "BYTES")
    made.set_data_from_numpy(values)
    return made


def main(asked: dict) -> None:
    wishes = {key: json.dumps(value) if isinstance(value, list) else value for key, value in asked["wishes"].items()}
    triton = import_module(f"tritonclient.{asked['protocol']}")
    own = local()  # its clients are not to be shared between threads

    def ask(user: str, history: list[str]) -> tuple[list[str], list[float]]:
        if not hasattr(own, "client"):
            own.client = triton.InferenceServerClient(asked["url"])
        inputs = [
            tensor(triton, "items", np.array([history], object)),
            tensor(triton, "users", np.array([user], object)),
        ]
        answer = own.client.infer(asked["model"], inputs, parameters=wishes)
        items, scores = answer.as_numpy("items")[0], answer.as_numpy("scores")[0]
        return [item if isinstance(item, str) else item.decode() for item in items], scores.tolist()

    with ThreadPoolExecutor(asked["callers"]) as pool:
        print(json.dumps(list(pool.map(ask, asked["users"], asked["histories"]))))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
