"""Closed loops by Triton's asynchronous clients; run by an interpreter that has them, which has nothing of ours.

The first argument is a file: what to ask. Prints latencies in seconds, and how many were answered, as JSON; the first
fifth of the time does not count.
"""

import asyncio
import json
import sys
from importlib import import_module
from itertools import cycle
from pathlib import Path
from time import perf_counter

import numpy as np

RAMP = 0.2


async def main(asked: dict) -> None:
    triton = import_module(f"tritonclient.{asked['protocol']}")
    aio = import_module(f"tritonclient.{asked['protocol']}.aio")
    more = {"conn_limit": asked["callers"]} if asked["protocol"] == "http" else {}
    client = aio.InferenceServerClient(asked["url"], **more)
    start = perf_counter()
    begin, end = start + RAMP * asked["seconds"], start + asked["seconds"]
    supply, latencies = cycle(asked["histories"]), []
    answered = 0

    async def caller() -> None:
        nonlocal answered
        while (sent := perf_counter()) < end:
            items = np.array([next(supply)], object)
            tensor = triton.InferInput("items", list(items.shape), "BYTES")
            tensor.set_data_from_numpy(items)
            answer = await client.infer(asked["model"], [tensor], parameters={"k": asked["k"]})
            assert answer.as_numpy("items").shape == (1, asked["k"])
            now = perf_counter()
            answered += begin <= now <= end
            if sent >= begin:
                latencies.append(now - sent)

    await asyncio.gather(*(caller() for _ in range(asked["callers"])))
    await client.close()
    print(json.dumps({"seconds": end - begin, "latencies": latencies, "answered": answered}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
