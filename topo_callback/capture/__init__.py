"""From a model and a fixed probe to one point cloud per layer."""

from topo_callback.capture.batches import (
    ProbeBatch,
    TokenisedPrompts,
    batch_size_for,
    make_batches,
    padding_id,
    resolve_pooling,
)
from topo_callback.capture.blocks import BlockStack, find_blocks, resolve_layers
from topo_callback.capture.forward import quiet
from topo_callback.capture.model_facts import model_device
from topo_callback.capture.next_token import NextTokens
from topo_callback.capture.proved import ProvedReading, prove_reading, read_clouds
from topo_callback.capture.reading import read_batch
from topo_callback.capture.tokens import TokenCloud, sample_tokens

__all__ = [
    "BlockStack",
    "NextTokens",
    "ProbeBatch",
    "ProvedReading",
    "TokenCloud",
    "TokenisedPrompts",
    "batch_size_for",
    "find_blocks",
    "make_batches",
    "model_device",
    "padding_id",
    "prove_reading",
    "quiet",
    "read_batch",
    "read_clouds",
    "resolve_layers",
    "resolve_pooling",
    "sample_tokens",
]
