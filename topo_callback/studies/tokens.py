"""The studies `random_tokens` and `shuffled_tokens`: how much of a cloud is there for random tokens in place of the
prompts', and how much without the order of the tokens?
"""

from __future__ import annotations

from topo_callback.probe import Probe
from topo_callback.probe.changed_probes import random_tokens as random_variant
from topo_callback.probe.changed_probes import shuffled_tokens as shuffled_variant
from topo_callback.probe.variants import ProbeVariant
from topo_callback.studies.against_original import TOKEN_MEASURES, compared, measures_of, places_of
from topo_callback.studies.by_layer import by_layer
from topo_callback.studies.registry import ProbeStudy, StudyNumbers, register
from topo_callback.studies.views import Reading, StudyContext


def random_probe(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
    """At most 256 of the prompts, evenly spaced, with every token replaced by a random one of the probe's."""
    return (random_variant(probe, places_of(len(probe)), seed),)


def random_tokens(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
    """`random_tokens_<number>` for every layer, see `against_original.compared`.

    What all prompts begin and end with stays. Input randomness is a factor of Skean et al., arXiv 2412.09563; shuffled
    probes are a control of Gardinazzi et al., arXiv 2410.11042. Cost: one pass over at most 256 prompts; two matrices
    of distances a layer.
    """
    return by_layer(context, lambda row: compared("random_tokens", context, row, reading, others[0]))


register(
    ProbeStudy(
        "random_tokens", measures_of("random_tokens"), random_probe, random_tokens, token_measures=TOKEN_MEASURES
    )
)


def shuffled_probe(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
    """At most 256 of the prompts, evenly spaced, with tokens in a random order."""
    return (shuffled_variant(probe, places_of(len(probe)), seed),)


def shuffled_tokens(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
    """`shuffled_tokens_<number>` for every layer, see `against_original.compared`.

    What all prompts begin and end with stays. Input randomness is a factor of Skean et al., arXiv 2412.09563; shuffled
    probes are a control of Gardinazzi et al., arXiv 2410.11042. Cost: one pass over at most 256 prompts; two matrices
    of distances a layer.
    """
    return by_layer(context, lambda row: compared("shuffled_tokens", context, row, reading, others[0]))


register(
    ProbeStudy(
        "shuffled_tokens",
        measures_of("shuffled_tokens"),
        shuffled_probe,
        shuffled_tokens,
        token_measures=TOKEN_MEASURES,
    )
)
