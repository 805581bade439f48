"""Importance criteria of `kdp prune`, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdp.config.options import checked_options
from kdp.errors import KdpError, suggest
from kdp.pruning.importance.base import RawScores, Scores, ScoringContext, UnitScorer
from kdp.pruning.importance.optin import combine_optin, optin
from kdp.pruning.importance.weights import magnitude, random, taylor

CRITERIA: dict[str, Callable[..., UnitScorer]] = {
    "optin": optin,
    "magnitude": magnitude,
    "taylor": taylor,
    "random": random,
}
"""(context, **options) -> scorer. A criterion prepares once per network, then scores by group."""

SCORE_COMBINERS: dict[str, Callable[..., Scores]] = {"optin": combine_optin}
"""(measurements, **options) -> scores, for criteria with several measurements per unit.

Their options change how measurements are combined, not the measurements, which are cached.
"""


def make_scorer(name: str, context: ScoringContext, options: dict[str, Any]) -> UnitScorer:
    """A criterion, ready to score the groups of a network.

    Args:
        name: a key of `CRITERIA`.
        context: network, groups and calibration batch.
        options: `prune.options` of the configuration.

    Raises:
        KdpError: there is no such criterion, or it does not take these options.
    """
    if name not in CRITERIA:
        raise KdpError(f"prune.criterion: unknown criterion {name!r}; {suggest(name, CRITERIA)}")
    return CRITERIA[name](context, **checked_options(CRITERIA[name], options, "prune.options"))


def combine_scores(name: str, parts: RawScores, options: dict[str, Any]) -> Scores:
    """One score per unit from the measurements of a criterion.

    Args:
        name: a key of `CRITERIA`.
        parts: measurements of all groups.
        options: `prune.options` of the configuration.
    """
    if name in SCORE_COMBINERS:
        combiner = SCORE_COMBINERS[name]
        return combiner(parts, **checked_options(combiner, options, "prune.options"))
    return {group: values[:, 0] for group, values in parts.items()}
