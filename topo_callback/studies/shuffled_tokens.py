"""The study `shuffled_tokens`: how much of a cloud is there without the order of the tokens?"""

from __future__ import annotations

from topo_callback.probe import Probe
from topo_callback.probe.changed_probes import shuffled_tokens as shuffled_variant
from topo_callback.probe.variants import ProbeVariant
from topo_callback.studies.against_original import TOKEN_MEASURES, compared, measures_of, places_of
from topo_callback.studies.by_layer import by_layer
from topo_callback.studies.registry import ProbeStudy, StudyNumbers, register
from topo_callback.studies.views import Reading, StudyContext

NAME = "shuffled_tokens"


def shuffled_probe(probe: Probe, seed: int) -> tuple[ProbeVariant, ...]:
    """At most 256 of the prompts, evenly spaced, with tokens in a random order."""
    return (shuffled_variant(probe, places_of(len(probe)), seed),)


def shuffled_tokens(context: StudyContext, reading: Reading, others: tuple[Reading, ...]) -> StudyNumbers:
    """`shuffled_tokens_<number>` for every layer, see `against_original.compared`.

    What all prompts begin and end with stays. Input randomness is a factor of Skean et al., arXiv 2412.09563; shuffled
    probes are a control of Gardinazzi et al., arXiv 2410.11042. Cost: one pass over at most 256 prompts; two matrices
    of distances a layer.
    """
    return by_layer(context, lambda row: compared(NAME, context, row, reading, others[0]))


register(ProbeStudy(NAME, measures_of(NAME), shuffled_probe, shuffled_tokens, token_measures=TOKEN_MEASURES))
