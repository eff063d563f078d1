"""Sums, log-sums and ranks over groups of unequal size that lie flat: one pass for a whole batch of trees."""

import torch

LEAST = -1e30  # stands for the logarithm of nothing: finite, so that gradients are


def total(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """[groups] sums of values [n] by their group [n]."""
    return values.new_zeros(groups).index_add(0, group, values)


def log_total(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """[groups] logarithms of the sums of exp(values) [n] by their group [n]; `LEAST` for an empty group."""
    highest = values.new_full((groups,), LEAST).scatter_reduce(0, group, values.detach(), "amax")
    sums = total((values - highest[group]).exp(), group, groups)
    return torch.where(sums > 0, highest + sums.clamp(min=torch.finfo(values.dtype).tiny).log(), LEAST)


def log_shares(values: torch.Tensor, group: torch.Tensor, groups: int) -> torch.Tensor:
    """[n] values less the log-sum of their group: log-probabilities within the group."""
    return values - log_total(values, group, groups)[group]


def ranks(values: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """[n] each value's rank in its group [n], from 0, the largest first; earlier ones first among equals."""
    order = torch.argsort(values, descending=True, stable=True)
    order = order[torch.argsort(group[order], stable=True)]
    ordered = group[order]
    place = torch.arange(len(order), device=order.device)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    first = torch.where(begins, place, 0).cummax(0).values if len(order) else place
    rank = torch.empty_like(place)
    rank[order] = place - first
    return rank
