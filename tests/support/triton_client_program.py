"""Asks a server by `tritonclient.http`; run by an interpreter that has it, which has nothing of ours.

The first argument is a file: what to ask. Prints what was answered as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

OUTPUTS = ("items", "titles", "scores", "positions")


def tensor(name, values, datatype, binary):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def listed(answer):
    arrays = {name: answer.as_numpy(name) for name in OUTPUTS}
    texts = {name: [[text if isinstance(text, str) else text.decode() for text in row] for row in arrays[name]]
             for name in ("items", "titles")}  # fmt: skip
    return texts | {name: arrays[name].tolist() for name in ("scores", "positions")}


def rows(values, width, fill, kind):
    return np.array([[*row, *[fill] * (width - len(row))] for row in values], kind)


def main(asked):
    client, told = triton.InferenceServerClient(asked["url"], concurrency=4), {}
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert {each["name"] for each in client.get_model_metadata("tiny")["outputs"]} == set(OUTPUTS)
    histories, users = rows(asked["histories"], 8, "", object), np.array(asked["users"], object)
    for name, how in asked["how"].items():
        parameters = {key: json.dumps(value) if isinstance(value, list) else value for key, value in how.items()}
        told[name] = {}
        for binary in (True, False):
            inputs = [tensor("items", histories, "BYTES", binary), tensor("users", users, "BYTES", binary)]
            outputs = [triton.InferRequestedOutput(output, binary_data=binary) for output in OUTPUTS]
            answer = client.infer("tiny", inputs, outputs=outputs, parameters=parameters, request_id=name)
            assert answer.get_response()["id"] == name
            told[name]["binary" if binary else "json"] = listed(answer)
    prompts, lengths = asked["prompts"], np.array([len(row) for row in asked["prompts"]])
    inputs = [
        tensor("tokens", rows(prompts, int(lengths.max()), 0, np.int64), "INT64", True),
        tensor("lengths", lengths, "INT64", True),
        tensor("k", np.array([6]), "INT64", True),
    ]
    pending = [client.async_infer("tiny", inputs, model_version="1") for _ in range(4)]
    answers = [listed(one.get_result()) for one in pending]
    told["prompts"] = answers
    try:
        client.infer("tiny", [tensor("items", np.array([["nothing"]], object), "BYTES", True)])
    except triton.InferenceServerException as error:
        told["error"] = {"message": error.message(), "status": error.status()}
    return told


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
