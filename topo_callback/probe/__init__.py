"""The fixed prompts whose activations are read at every sample."""

from topo_callback.probe.formats import check_rows
from topo_callback.probe.probe import Probe
from topo_callback.probe.sampling import choose_probe, sample_probe

__all__ = ["Probe", "check_rows", "choose_probe", "sample_probe"]
