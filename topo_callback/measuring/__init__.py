"""Measurement: from one sample to its snapshot, a pure function of arrays and configuration."""

from topo_callback.measuring.measure import measure_sample

__all__ = ["measure_sample"]
