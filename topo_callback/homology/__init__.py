"""Persistent homology of a cloud and zigzag persistence of a sequence of neighbour graphs."""

from topo_callback.homology.rips import rips_persistence
from topo_callback.homology.zigzag import zigzag_persistence

from topo_callback.homology.barcode import Barcode

__all__ = ["Barcode", "rips_persistence", "zigzag_persistence"]
