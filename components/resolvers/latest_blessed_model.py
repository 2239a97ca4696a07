"""Resolvers for the latest blessed model: the one to compare a candidate with, and the one to start from."""

from typing import Any

from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.types import Channel, standard_artifacts

from schema.artifact_types import Artifacts

CANDIDATE_KEY = "candidate"


class LatestOtherBlessedModelStrategy(LatestBlessedModelStrategy):
    """The latest blessed model other than the candidate itself.

    In a repeated run, TFX's own strategy returns the candidate: it would be compared with itself, and the Evaluator
    would run again although nothing changed.
    """

    def resolve_artifacts(self, store: Any, input_dict: Artifacts) -> Artifacts | None:
        candidates = input_dict.pop(CANDIDATE_KEY)
        candidate_ids = {artifact.id for artifact in candidates}
        others = {
            key: [artifact for artifact in artifacts if artifact.id not in candidate_ids]
            for key, artifacts in input_dict.items()
        }
        resolved = super().resolve_artifacts(store, others)
        return None if resolved is None else {**resolved, CANDIDATE_KEY: candidates}


def latest_blessed_model(candidate: Channel) -> Resolver:
    """The node that looks up the baseline in ML Metadata; its output `model` is empty if there is none."""
    return Resolver(
        strategy_class=LatestOtherBlessedModelStrategy,
        candidate=candidate,
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    )


def model_to_start_from() -> Resolver:
    """The node that looks up the model blessed last, before there is a candidate; its output `model` may be empty."""
    return Resolver(
        strategy_class=LatestBlessedModelStrategy,
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
    ).with_id("model_to_start_from")
