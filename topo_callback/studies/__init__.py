"""Studies: numbers that need further forward passes, off unless they are asked for.

Importing this package registers every study.
"""

from topo_callback.studies import (
    cross_lingual,
    dime,
    info_nce,
    lidar,
    prompt_length,
    repetition_neurons,
    sensitive_directions,
    tokens,
    topographic_correlation,
)
from topo_callback.studies.registry import (
    ModelStudy,
    NoStudyError,
    ProbeStudy,
    StudyNumbers,
    register,
    studies,
)
from topo_callback.studies.running import StudyResults, StudyRunner
from topo_callback.studies.views import ModelContext, Reading, StudyContext

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
    "cross_lingual",
    "dime",
    "info_nce",
    "lidar",
    "prompt_length",
    "register",
    "repetition_neurons",
    "sensitive_directions",
    "studies",
    "tokens",
    "topographic_correlation",
]
