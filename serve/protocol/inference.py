"""What the tensors and parameters of an inference ask for."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec
import numpy as np

from ...runtime.encoding import check_k
from ..arrays import as_arrays
from ..recommender import AsyncRecommender, Served
from .asking import Id, K, Wishes, about, ask, converted
from .lists import Lists
from .refusals import Refused, refusal
from .rules import Rules
from .tensors import Scalar, Tensor, check_input

# Parameters of the protocol's and of Triton's own that ask for nothing here; the others are fields of `Wishes`.
IGNORED = frozenset({"binary_data_output", "sequence_id", "sequence_start", "sequence_end"})
TIMEOUT = "timeout"  # Triton's, in microseconds
LISTS = ("allow", "deny")  # parameters that hold JSON, as the protocol's are no lists


async def lists_of(
    rules: Rules, model: AsyncRecommender, tensors: dict[str, Tensor], parameters: dict[str, Scalar]
) -> Lists:  # fmt: skip
    """All lists, or where one fails the reason. Raises `Refused` with the input or the parameter that is at fault."""
    model = model.pinned()  # all rows are served by what serves now
    for name, values in tensors.items():
        check_input(name, values)
    wishes = _wishes(parameters, tensors.get("k"))
    history = set(tensors) - {"k", "users"}
    if history not in ({"items"}, {"tokens", "lengths"}):
        raise Refused(400, "expected the input items, or tokens and lengths.", field="inputs")
    rows = len(tensors["items" if "items" in history else "tokens"])
    if not 0 < rows <= rules.limits.entries:
        raise Refused(400, f"got {rows} rows; expected 1 to {rules.limits.entries}.", field="inputs")
    if "items" in history:
        return await _of_histories(rules, model, tensors, wishes)
    return await _of_prompts(rules, model, tensors, wishes)


def _wishes(parameters: dict[str, Scalar], k: Tensor | None) -> Wishes:
    asked: dict[str, object] = {name: value for name, value in parameters.items() if name not in IGNORED}
    timeout = asked.pop(TIMEOUT, None)
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 0:
            raise Refused(400, "expected microseconds.", field="parameters.timeout")
        if timeout:  # 0: none
            asked.setdefault("deadline_ms", timeout / 1000)
    for name in set(LISTS) & set(asked):
        try:
            asked[name] = msgspec.json.decode(str(asked[name]), type=list[Id])
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise Refused(
                400, 'expected a list of ids as JSON, such as ["8", "11"].', field=f"parameters.{name}"
            ) from None
    if k is not None:
        if len(k) != 1 or "k" in asked:
            raise Refused(400, "expected one number, as an input or as a parameter.", field="inputs.k")
        asked["k"] = int(k[0])
    return converted(asked, Wishes, "parameters")


async def _of_histories(rules: Rules, model: AsyncRecommender, tensors: dict[str, Tensor], wishes: Wishes) -> Lists:
    """items [B, N], each row a history, oldest item first, "" behind its end or before its beginning; users [B]."""
    histories = [[item for item in row if item] for row in tensors["items"].tolist()]
    users = tensors.get("users", np.full(len(histories), "", object)).tolist()
    if len(users) != len(histories):
        raise Refused(400, f"got {len(users)} users for {len(histories)} histories.", field="inputs.users")

    async def row(number: int) -> Served:
        try:
            return await ask(model, rules, wishes, histories[number], users[number] or None)
        except Exception as error:
            raise _of_row(number, error) from error

    answers = await _all([row(number) for number in range(len(histories))])
    return Lists.of_answers(answers, model.edition, wishes.k or K)


def _of_row(number: int, error: Exception) -> Exception:
    """The error with the row that is at fault, where one is."""
    refused = refusal(error)
    if refused.status != 400 or refused.field not in ("items", None):
        return error
    return Refused(400, refused.message, field=f"inputs.items[{number}]")


async def _all(asking: Sequence[Coroutine[Any, Any, Served]]) -> list[Served]:
    """All answers; where one fails the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in asking]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _of_prompts(rules: Rules, model: AsyncRecommender, tensors: dict[str, Tensor], wishes: Wishes) -> Lists:
    """tokens [B, P], lengths [B]: prompts as the model was trained with, what follows a prompt's length is left out."""
    told = set(msgspec.to_builtins(wishes)) - {"k", "deadline_ms"}
    more = min((name for name in told if getattr(wishes, name) is not None), default=None)
    if more or "users" in tensors:
        raise Refused(400, "this goes with the input items, not with tokens.", field=f"parameters.{more or 'users'}")
    k, limits, edition = wishes.k or K, rules.limits, model.edition
    with about("k"):
        check_k(k, limits.k)
        check_k(k, edition.recommender.max_k)
    seconds = min(wishes.deadline_ms or limits.timeout_ms, limits.timeout_ms) / 1000
    with about("inputs.tokens"):
        futures = model.submit_arrays(tensors["tokens"], tensors["lengths"], k, timeout=seconds)
    async with asyncio.timeout(seconds):
        served = await asyncio.gather(*map(asyncio.wrap_future, futures))
    places, scores = as_arrays(edition.recommender, [each.recommendation for each in served], k)
    return Lists.of_positions(places, scores, edition)
