"""The probe of a scan, from a file or a data set, in the tokens of each series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, ProbeError
from topo_callback.probe import Probe
from topo_callback.probe.files import read_probe, read_rows
from topo_callback.probe.sampling import MOST_READS_PER_PROMPT, sample_probe
from topo_callback.scan.checkpoint import Checkpoint, UnreadableCheckpointError, local_folder


@dataclass
class Prompts:
    """Where the prompts come from; exactly one of the first three is given.

    Attributes:
        probe: a Probe, for models that share one vocabulary.
        file: one prompt per line, JSON lines with rows, or the folder of a run with keep_prompts; read whole.
        dataset: a hub name (NAME or NAME:CONFIGURATION), a saved folder, or a JSON-lines file; rows are drawn from it.
        tokenizer: a hub name or folder; None: that of the checkpoint, or of an adapter's base.
    """

    probe: Probe | None = None
    file: Path | None = None
    dataset: str | None = None
    tokenizer: str | None = None
    _rows: list[Any] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.probe, self.file, self.dataset)) != 1:
            raise ConfigurationError("give one of a probe, a file with prompts, and a data set to draw prompts from")

    def check(self) -> None:
        """Raise ProbeError, or RecordError of a run's folder, unless there is a file where one is named."""
        if self.file is not None and not read_rows(self.file, 1):
            raise ProbeError(f"prompts {self.file} has no prompts; give one on each line")

    def check_tokenizer(self, folders: list[Path]) -> None:
        """Raise UnreadableCheckpointError where the first tokenizer in these folders is needed, and not whole."""
        from topo_callback.scan.opening import open_tokenizer

        if self.probe is not None or self.tokenizer is not None:
            return
        try:
            found = open_tokenizer(folders)
        except ConfigurationError as error:
            raise UnreadableCheckpointError(str(error)) from error
        if found is None:
            raise UnreadableCheckpointError("it has no tokenizer; name one with --tokenizer NAME")

    def reader(self, config: TopologyConfig) -> Callable[[list[Path]], Probe]:
        """A function from folders that may have a tokenizer to the probe.

        Raises (the function):
            ProbeError: no prompts, or no tokenizer. ConfigurationError: a tokenizer or data set that cannot be read.
        """

        def probe_of(folders: list[Path]) -> Probe:
            if self.probe is not None:
                return self.probe
            tokenizer = self._tokenizer(folders)
            if self.file is not None:
                probe = read_probe(self.file, tokenizer, max_tokens=config.max_tokens)
            else:
                probe = sample_probe(
                    self._dataset_rows(config),
                    None,
                    tokenizer,
                    prompts=config.prompts,
                    max_tokens=config.max_tokens,
                    seed=config.seed,
                )
            return replace(probe, processing_class=tokenizer)

        return probe_of

    def _tokenizer(self, folders: list[Path]) -> Any:
        from topo_callback.scan.opening import open_tokenizer

        if self.tokenizer is not None:
            try:
                folders = [local_folder(Checkpoint(self.tokenizer), weights=False)]
            except UnreadableCheckpointError as error:
                raise ConfigurationError(f"tokenizer {self.tokenizer}: {error}") from error
        tokenizer = open_tokenizer(folders)
        if tokenizer is None:
            raise ProbeError(f"{folders[0].name} has no tokenizer; name one with --tokenizer NAME")
        return tokenizer

    def _dataset_rows(self, config: TopologyConfig) -> list[Any]:
        if not self._rows:
            from topo_callback.probe.data_rows import load_rows

            most = MOST_READS_PER_PROMPT * config.prompts
            self._rows, _ = load_rows(str(self.dataset), training=most, held_out=0, seed=config.seed)
        return self._rows
