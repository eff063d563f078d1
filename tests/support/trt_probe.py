"""Run in a process of its own, with TensorRT's genuine module on sys.path: prints what it is, as JSON.

Usage: trt_probe.py api MODULE | build GRAPH FOLDER | load PLAN
"""

import importlib
import json
import re
import sys
from pathlib import Path


def api(module: str) -> object:
    """Every class: members of enums, attributes, and the argument names of each overload of its methods."""
    found = {}
    for name, kind in vars(importlib.import_module(module)).items():
        if isinstance(kind, type):
            attributes = {
                a: overloads(a, getattr(kind, a, None)) for a in dir(kind) if a == "__init__" or a[:2] != "__"
            }
            found[name] = {"attributes": attributes, "members": list(getattr(kind, "__members__", ()))}
        elif callable(kind):
            found[name] = {"attributes": {"__call__": overloads(name, kind)}, "members": []}
    return found


def overloads(name: str, function: object) -> list[list[str]]:
    """Argument names, `self` left out, by the signatures in a docstring."""
    signatures = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) ->", function.__doc__ or "", re.MULTILINE)
    names = [re.findall(r"(?:^|, )(\w+):", signature) for signature in signatures]
    return [arguments[1:] if arguments[:1] == ["self"] else arguments for arguments in names]


def build(graph: str, folder: str) -> object:
    """Our path on the genuine module, with objects that only its library could make stood in for."""
    import tensorrt as trt

    import fake_tensorrt as fake
    from specbeam.engines.tensorrt import build as trt_build
    from specbeam.engines.tensorrt.library import Messages, new_logger
    from specbeam.engines.tensorrt.monitor import new_monitor
    from specbeam.engines.tensorrt.profiles import profiles_for
    from trt_cases import FACTS, LENGTH, LIMITS

    messages, seen = Messages(), []
    logger = new_logger(trt, messages)
    for severity in trt.ILogger.Severity.__members__.values():
        logger.log(severity, severity.name)
    monitor = new_monitor(trt, lambda *what: seen.append(what), messages)
    assert isinstance(monitor, trt.IProgressMonitor)
    assert isinstance(logger, trt.ILogger)
    fake.BuilderFlag = trt.BuilderFlag
    network = fake.INetworkDefinition()
    fake.OnnxParser(network, logger).parse_from_file(graph)
    plans = []
    for given in (
        trt_build.TrtOptions(),
        trt_build.TrtOptions(
            workspace=1 << 20, timing_cache=f"{folder}/timing", version_compatible=True, hardware_compatible=True
        ),
    ):
        builder = fake.Builder(logger)
        config = trt_build.new_config(trt, builder, profiles_for("target", FACTS, LIMITS, LENGTH), given, monitor)
        plans.append(json.loads(builder.build_serialized_network(network, config)))
        if given.timing_cache:
            trt_build._keep_timings(config, Path(given.timing_cache))
    return {"version": trt.__version__, "errors": messages.last(), "progress": len(seen), "plans": plans}


def load(graph: str, plan: str) -> object:
    """What is said where TensorRT's libraries do nothing."""
    import tensorrt as trt

    from specbeam.catalog.errors import EngineError
    from specbeam.engines.tensorrt import build as trt_build
    from specbeam.engines.tensorrt.flavour import TENSORRT
    from specbeam.engines.tensorrt.library import Messages
    from specbeam.engines.tensorrt.load import open_plan
    from trt_cases import facts_of

    said = []
    messages = Messages()
    for attempt in (
        lambda: trt_build.parse_graph(trt, TENSORRT, Path(graph), messages),
        lambda: open_plan(trt, Path(plan), facts_of(trt.__version__), TENSORRT, None, "REBUILD"),
    ):
        try:
            attempt()
        except EngineError as error:
            said.append(str(error))
    return said


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps({"api": api, "build": build, "load": load}[sys.argv[1]](*sys.argv[2:])))
