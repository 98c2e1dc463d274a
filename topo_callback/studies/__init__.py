"""Studies: numbers that need further forward passes, off unless they are asked for.

Importing this package registers every study.
"""

from topo_callback.studies import (
    augmented_views,
    cross_lingual,
    repetition_neurons,
    sensitive_directions,
    tokens,
    topographic_correlation,
)
from topo_callback.studies.registry import (
    ModelContext,
    ModelStudy,
    NoStudyError,
    ProbeStudy,
    Reading,
    StudyContext,
    StudyNumbers,
    register,
    studies,
)
from topo_callback.studies.running import StudyResults, StudyRunner

__all__ = [
    "ModelContext",
    "ModelStudy",
    "NoStudyError",
    "ProbeStudy",
    "Reading",
    "StudyContext",
    "StudyNumbers",
    "StudyResults",
    "StudyRunner",
    "augmented_views",
    "cross_lingual",
    "register",
    "repetition_neurons",
    "sensitive_directions",
    "studies",
    "tokens",
    "topographic_correlation",
]
