"""The criteria, by name."""

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
"""(context, **options) -> scorer: prepares once for a network, then measures group by group."""

SCORE_COMBINERS: dict[str, Callable[..., Scores]] = {"optin": combine_optin}
"""(measurements, **options) -> scores, for criteria that measure more than one number."""


def make_scorer(name: str, context: ScoringContext, options: dict[str, Any]) -> UnitScorer:
    """A criterion ready to score the groups of a network.

    Raises:
        KdpError: no such criterion, or options it does not take.
    """
    if name not in CRITERIA:
        raise KdpError(f"no criterion is called {name!r}; {suggest(name, CRITERIA)}")
    return CRITERIA[name](context, **checked_options(CRITERIA[name], options, "prune.options"))


def combine_scores(name: str, parts: RawScores, options: dict[str, Any]) -> Scores:
    """Scores out of measurements."""
    if name in SCORE_COMBINERS:
        return SCORE_COMBINERS[name](
            parts, **checked_options(SCORE_COMBINERS[name], options, "prune.options")
        )
    return {group: values[:, 0] for group, values in parts.items()}
