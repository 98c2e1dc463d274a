"""A probe from the training data: a seeded sample of the rows as the trainer has prepared them.

The data set is read so that training sees the rows it would have seen.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from topo_callback.errors import USERS_OWN, ProbeError
from topo_callback.probe.formats import check_row, is_stream, refuse_stream, without_output_format
from topo_callback.probe.probe import Probe, ProbeCollection
from topo_callback.probe.rows import RowTokenizer, TokenSequence
from topo_callback.terminal import show_if_asked

# Many rows may repeat a prompt (several answers to each), yet a data set of millions is never read to its end.
MOST_READS_PER_PROMPT = 32
# So many unusable rows in a row at the start mean that the others are no better.
MOST_UNUSABLE = 64


def choose_probe(given: Any, train_dataset: Any, processing_class: Any, *, max_tokens: int, **sampling: Any) -> Probe:
    """The probe that was given, as it is or tokenised; a sample of the trainer's data when none was.

    It refers to the processing class, unless it has one of its own, so that studies can change its texts.

    Args:
        given: a Probe, rows for `Probe.from_rows`, or None.
        train_dataset, processing_class, max_tokens: as in `sample_probe`.
        sampling: further arguments of `sample_probe`.

    Raises:
        ProbeError: see `Probe.from_rows` and `sample_probe`.
    """
    if isinstance(given, Probe):
        probe = given
    elif given is not None:
        probe = Probe.from_rows(given, processing_class, max_tokens=max_tokens)
    else:
        probe = sample_probe(train_dataset, None, processing_class, max_tokens=max_tokens, **sampling)
    return probe if probe.processing_class is not None else replace(probe, processing_class=processing_class)


def sample_probe(
    train_dataset: Any,
    eval_dataset: Any = None,
    processing_class: Any = None,
    *,
    prompts: int = 256,
    max_tokens: int = 256,
    seed: int = 0,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Probe:
    """Sample different prompts from the evaluation set, or from the training set when that one gives more.

    The sample depends on nothing but the rows, the tokenizer and the arguments, so every rank draws the same one. Rows
    are read by index, without a data loader; random numbers that a lazy transform of the data set draws come from
    states of their own, and the global ones are as before. So is the data set itself (see `rows_untouched`).

    Args:
        train_dataset: a map-style data set as trainers hand it to callbacks (`train_dataloader.dataset`): rows in
            tokens (SFT, packed SFT, DPO, KTO, Reward, a plain Trainer), or in any format that `Probe.from_rows` takes
            (GRPO and RLOO keep their prompts as text).
        eval_dataset: the same for evaluation, a dict of them (the first is used), or None.
        processing_class: the tokenizer or processor; needed for text, and to tell the end-of-sequence token that a
            trainer adds to every text, which is left out.
        prompts: how many different prompts to draw; a smaller or repetitive data set gives fewer.
        max_tokens: longest prompt, cut as `Probe.from_rows` cuts.
        seed: of the own random generator.
        chat_template_kwargs: options for the chat template, as GRPOConfig and RLOOConfig take them.

    Raises:
        ProbeError: the data are a stream, of an unknown format, hold images, audio or video, fewer than two different
            prompts, or an iterator that cannot be set back; pass a probe then.
    """
    tokenizer = RowTokenizer(processing_class, chat_template_kwargs)
    if isinstance(eval_dataset, Mapping):
        eval_dataset = next(iter(eval_dataset.values()), None)
    evaluation: Probe | None = None
    if eval_dataset is not None and not is_stream(eval_dataset):
        # Too small or unusable an evaluation set is no reason to fail where the training set will do.
        with contextlib.suppress(ProbeError):
            evaluation = _sample(eval_dataset, "evaluation data", tokenizer, prompts, max_tokens, seed)
    if evaluation is not None and len(evaluation) == prompts:
        return evaluation
    try:
        training = _sample(train_dataset, "training data", tokenizer, prompts, max_tokens, seed)
    except ProbeError:
        if evaluation is None:
            raise
        return evaluation
    return training if evaluation is None or len(training) > len(evaluation) else evaluation


def _sample(dataset: Any, source: str, tokenizer: RowTokenizer, prompts: int, max_tokens: int, seed: int) -> Probe:
    if dataset is None:
        raise ProbeError(f"there are no {source} to sample a probe from; pass a probe")
    refuse_stream(dataset, source)
    rows = len(dataset)
    if rows == 0:
        raise ProbeError(f"the {source} are empty; pass a probe")
    generator = np.random.default_rng(seed)
    reads = min(rows, max(MOST_READS_PER_PROMPT * prompts, 1024))
    order = generator.choice(rows, size=reads, replace=False)
    collection = ProbeCollection(max_tokens, tokenizer.leading_ids)
    dataset = without_output_format(dataset)
    # A packed row holds many texts, alike in length: take few of each row, and more only when the rows run out.
    share = -(-prompts // rows)
    left: list[TokenSequence] = []
    first_error: ProbeError | None = None
    with _own_random_state(seed), rows_untouched(dataset, order.tolist(), source):
        for reading, i in enumerate(order.tolist()):
            try:
                sequences = _read(dataset, i, f"row {i} of the {source}", tokenizer)
            except ProbeError as error:
                first_error = first_error or error
                if reading + 1 >= MOST_UNUSABLE and not len(collection):
                    break
                continue
            if len(sequences) > 1:
                sequences = [sequences[j] for j in generator.permutation(len(sequences))]
            collection.extend(sequences[:share], most=prompts)
            left += sequences[share:]
            if len(collection) >= prompts:
                break
    collection.extend(left, most=prompts)
    if len(collection) < 2 and first_error is not None:
        raise first_error
    return collection.probe(source, tokenizer.used_template)


def _read(dataset: Any, i: int, name: str, tokenizer: RowTokenizer) -> list[TokenSequence]:
    try:
        row = dataset[i]
    except USERS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001  a data set can raise anything, and may quote the row
        show_if_asked(error)
        raise ProbeError(f"{name} could not be read ({type(error).__name__}); pass a probe") from None
    check_row(row, name)
    sequences = tokenizer.sequences(row, name)
    if isinstance(row, Mapping) and row.get("input_ids") is not None and row.get("attention_mask") is None:
        # TRL has appended the end-of-sequence token; rows with an attention mask come from the user's own tokenizer.
        return [tokenizer.without_end(sequence) for sequence in sequences]
    return sequences


@contextlib.contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed the global random states of Python, NumPy and torch (on the CPU) for a while, and put them back."""
    torch = sys.modules.get("torch")
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002  the legacy state is the one data sets draw from
    torch_state = None if torch is None else torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        if torch is not None:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators too
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        if torch is not None:
            torch.set_rng_state(torch_state)


@contextlib.contextmanager
def rows_untouched(dataset: Any, rows: Sequence[int], source: str) -> Iterator[None]:
    """Whatever reading rows inside changes in the data set, it is afterwards as before; also after an error.

    Data sets may draw from a generator of their own, count or cache what is read, open files late, or change a row
    in place; nested ones (Subset, ConcatDataset) and the transform of a `datasets.Dataset` included.

    Args:
        dataset: map-style.
        rows: the numbers of the rows that may be read.
        source: what messages call the data.

    Raises:
        ProbeError: before anything is read, where the data set holds an iterator that cannot be set back.
    """
    if type(dataset) in (list, tuple) and all(type(dataset[row]) in (str, dict) for row in rows):
        yield  # nothing of the user's runs
        return
    from topo_callback.state.opaque import Opaque
    from topo_callback.state.reachable import Reachable
    from topo_callback.state.writes import Writes, plain_tensors

    state = Reachable(dataset, source, rows=rows)
    opaque = [Opaque(value, owner) for value, owner in state.opaque]
    fixed = next((each for each in opaque if each.spare is None and hasattr(each.value, "__next__")), None)
    if fixed is not None:
        raise ProbeError(
            f"the {source} ({type(dataset).__name__}) hold a {type(fixed.value).__name__}, which cannot be set back "
            "after reading a row, so training would see other rows; pass a probe"
        )
    tensors = [plain for tensor, _ in state.tensors for plain in plain_tensors(tensor)]
    writes = Writes(tensors, doubting=True, doubted=set())
    try:
        with writes:
            yield
    finally:
        for each in opaque:
            if each.changed() and each.spare is not None:
                state.replace(*each.renew())
        state.put_back()
        writes.put_back()
