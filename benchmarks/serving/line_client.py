"""Callers of a server in a process of their own, told what to do line by line; benchmarks.serving.ways runs it.

line_client.py WAY ADDRESS MODEL HISTORIES K, with an interpreter that has tritonclient where WAY is triton-http or
triton-grpc; http needs nothing. HISTORIES: a line a user, "user<TAB>id id id ...". Commands on standard input:
`one N` (answered by the microseconds of user N's list) and `load CALLERS SECONDS` (requests answered, and seconds).
"""

import json
import sys
from collections.abc import Callable
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from threading import Thread
from time import perf_counter

Ask = Callable[[list[str]], object]


def over_http(address: str, model: str, k: int) -> Ask:
    """One kept connection to `specbeam serve`."""
    connection = HTTPConnection(address)

    def ask(history: list[str]) -> object:
        body = json.dumps({"items": history, "k": k})
        connection.request("POST", f"/v1/recommend?model={model}", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return json.loads(content)

    return ask


def over_triton(module: str) -> Callable[[str, str, int], Ask]:
    """One client of NVIDIA's to a Triton server; module: its protocol."""
    import numpy as np

    triton = getattr(__import__(f"tritonclient.{module}"), module)

    def connected(address: str, model: str, k: int) -> Ask:
        client = triton.InferenceServerClient(address)

        def ask(history: list[str]) -> object:
            items = np.array([history], object)
            tensor = triton.InferInput("items", list(items.shape), "BYTES")
            tensor.set_data_from_numpy(items)
            answer = client.infer(model, [tensor], parameters={"k": k})
            return answer.as_numpy("items"), answer.as_numpy("scores")

        return ask

    return connected


def load(connect: Callable[[], Ask], histories: list[list[str]], callers: int, seconds: float) -> tuple[int, float]:
    """Requests answered, and seconds: so many callers, each with a connection of its own."""
    turn, answered, start = count(), count(), perf_counter()

    def caller() -> None:
        ask = connect()
        while perf_counter() < start + seconds:
            ask(histories[next(turn) % len(histories)])
            next(answered)

    threads = [Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next(answered), perf_counter() - start


def main(way: str, address: str, model: str, path: str, k: int) -> None:
    histories = [line.partition("\t")[2].split() for line in Path(path).read_text().splitlines()]
    kind = over_http if way == "http" else over_triton(way.removeprefix("triton-"))
    ask = kind(address, model, k)
    print("ready", flush=True)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "one":
            start = perf_counter()
            ask(histories[int(words[0])])
            print(1e6 * (perf_counter() - start), flush=True)
        elif command == "load":
            print(*load(lambda: kind(address, model, k), histories, int(words[0]), float(words[1])), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))
