"""Where rows and tokens are in the states that a block gives."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture.blocks import bare
from topo_callback.errors import UnsupportedModelError


@dataclass(frozen=True)
class StateLayout:
    """The axes of the states between blocks; the others are the width, mostly the last one alone.

    Most models give [rows, tokens, width]; XLNet gives [tokens, rows, width], a model with several residual streams
    (hyper-connections) [rows, tokens, streams, width] or, as in AltUp, [streams, rows, tokens, width].

    Attributes:
        rows: axis of the rows of a batch.
        tokens: axis of the tokens.
        front: positions in front of the first token, such as the virtual tokens of prompt tuning. What is more than
            these and the tokens comes last, as where a model pads to a multiple of its attention window.
    """

    rows: int = 0
    tokens: int = 1
    front: int = 0

    @property
    def plain(self) -> bool:
        """Whether states are [rows, tokens, width], the tokens first."""
        return (self.rows, self.tokens, self.front) == (0, 1, 0)

    def arranged(self, hidden: Tensor, rows: int, tokens: int) -> Float[Tensor, "rows positions width"]:
        """The states of a batch with rows first and positions next; several streams stand side by side in the width.

        Raises:
            UnsupportedModelError: not the states of so many rows and tokens.
        """
        if hidden.ndim == 2 and len(hidden) % rows == 0 and len(hidden) >= rows * tokens:
            # OPT runs its feed-forward on all tokens in one row
            return hidden.reshape(rows, -1, hidden.shape[1])
        if hidden.ndim == 2:
            raise UnsupportedModelError(
                f"a block gives {tuple(hidden.shape)} for {rows} rows of {tokens} tokens, as if it removed padding; "
                "load the model with attn_implementation='sdpa'"
            )
        if hidden.ndim < 3 or hidden.shape[self.rows] != rows or hidden.shape[self.tokens] < tokens:
            raise UnsupportedModelError(
                f"a block gives {tuple(hidden.shape)} for {rows} rows of {tokens} tokens, where rows are expected on "
                f"axis {self.rows} and one state for each token on axis {self.tokens}; choose layers before the model "
                "shortens its states, or another stack with blocks='...'"
            )
        rest = [axis for axis in range(hidden.ndim) if axis not in (self.rows, self.tokens)]
        ordered = hidden.permute(self.rows, self.tokens, *rest)
        return ordered.flatten(2) if ordered.ndim > 3 else ordered

    def first(self, positions: int, tokens: int) -> int:
        """Where the first token is among the positions of a state, or of what a module after the blocks is given."""
        return self.front if positions - tokens >= self.front else 0


def expected_layout(model: nn.Module) -> StateLayout:
    """The layout of a model whose states nobody has looked at: plain, behind the virtual tokens of prompt tuning."""
    settings = getattr(bare(model), "active_peft_config", None)
    if not getattr(settings, "is_prompt_learning", False):
        return StateLayout()
    return StateLayout(front=int(getattr(settings, "num_virtual_tokens", None) or 0))
