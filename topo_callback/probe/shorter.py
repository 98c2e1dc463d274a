"""A probe cut to fewer tokens than it was made with."""

from __future__ import annotations

from dataclasses import replace

from topo_callback.errors import ProbeError
from topo_callback.probe.parallel import ParallelProbe
from topo_callback.probe.probe import Probe, ProbeCollection, cut
from topo_callback.probe.rows import TokenSequence, leading_ids


def shortened(probe: Probe, max_tokens: int) -> Probe:
    """The probe that its rows give with a smaller `max_tokens`: cut as `Probe.from_rows` cuts, without new duplicates.

    The opening token (BOS, CLS) stays in front where the probe has its tokenizer. Of a parallel probe a meaning stays
    or goes in all its languages.

    Args:
        probe: any probe.
        max_tokens: longest prompt, at most that of the probe.

    Raises:
        ProbeError: fewer than two different prompts (or meanings) are left.
    """
    leading = leading_ids(probe.processing_class)
    sequences = [TokenSequence(*each) for each in zip(probe.token_ids, probe.prompt_lengths, strict=True)]
    if not isinstance(probe, ParallelProbe):
        collection = ProbeCollection(max_tokens, leading)
        collection.extend(sequences)
        found = collection.probe(probe.source, probe.chat_template)
        duplicates = probe.duplicates + found.duplicates
        return replace(found, duplicates=duplicates, processing_class=probe.processing_class)
    kept: list[TokenSequence] = []
    seen: set[tuple[int, ...]] = set()
    for start in range(0, len(probe), len(probe.languages)):
        meaning = [cut(each, max_tokens, leading) for each in sequences[start : start + len(probe.languages)]]
        texts = [{each.token_ids, each.token_ids[: each.prompt_length]} for each in meaning]
        if not any(text & seen for text in texts) and sum(map(len, texts)) == len(set().union(*texts)):
            seen.update(*texts)
            kept += meaning
    if len(kept) < 2 * len(probe.languages):
        raise ProbeError(
            f"cut to {max_tokens} tokens, {len(kept) // len(probe.languages)} meanings of the parallel probe are left; "
            "accepted: at least 2 meanings whose prompts all differ in their last tokens"
        )
    return replace(
        probe,
        token_ids=tuple(each.token_ids for each in kept),
        prompt_lengths=tuple(each.prompt_length for each in kept),
        max_tokens=max_tokens,
        duplicates=probe.duplicates + len(sequences) - len(kept),
    )
