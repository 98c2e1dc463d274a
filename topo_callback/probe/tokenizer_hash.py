"""What the token ids of a probe stand for: equal ids of two vocabularies are different texts."""

from __future__ import annotations

import hashlib
import json
import logging

from topo_callback.errors import USERS_OWN, described
from topo_callback.probe.probe import Probe

logger = logging.getLogger("topo_callback")


def tokenizer_hash(probe: Probe) -> str | None:
    """SHA-256, hexadecimal, of the probe's token ids, each once and ascending, and the tokens that they stand for.

    Only these are in it, so a tokenizer that was given another padding token, or further tokens, has the same hash.
    None where the probe has no tokenizer, or one that does not say.
    """
    tokenizer = getattr(probe.processing_class, "tokenizer", probe.processing_class)
    if tokenizer is None:
        return None
    used = sorted({token for ids in probe.token_ids for token in ids})
    try:
        tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(used)]
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - any tokenizer's own code; a hash less is no reason to stop
        logger.debug("the tokenizer does not say what its tokens are: %s", described(error))
        return None
    if len(tokens) != len(used):
        return None
    return hashlib.sha256(json.dumps([used, tokens]).encode()).hexdigest()
