"""The published methods by name."""

from __future__ import annotations

# Persistence similarity divided by the Betti number of the other layer (first version of arXiv 2410.11042 and its
# released code) and of the layer itself (ICML version, equation 7); arXiv 2403.17887; arXiv 2403.03853.
METHODS = ("persistence-v1", "persistence-icml", "angular-distance", "block-influence")
OF_ACTIVATIONS = METHODS[2:]  # need more than a zigzag
