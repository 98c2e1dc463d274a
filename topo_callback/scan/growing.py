"""Plans of a trajectory that grows: each new checkpoint goes into it as if it had been there from the first one on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError
from topo_callback.probe import Probe
from topo_callback.scan.checkpoint import Checkpoint, CheckpointSeries, UnreadableCheckpointError
from topo_callback.scan.opening import check_checkpoint
from topo_callback.scan.planning import Plan, make_folder, name_latest, plan_series
from topo_callback.scan.prompts import Prompts
from topo_callback.scan.scanning import Manner


class Growing:
    """Makes the plans of one trajectory, all in the tokens that the first one's tokenizer makes, as a scan does.

    Args:
        name: of the trajectory.
        identity: what tells it from others of its name.
        output: the trajectory's folder goes in here.
        prompts: the probe.
        config: how models are read and measured.
        base: step 0; its tokenizer counts before those of checkpoints.
        reading: as of `plan_series`.
        manner: devices, and whether weights may be pickled.

    Attributes:
        begun: whether a plan was made: from then on, it is a checkpoint that is unlike others, and not a setting.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        output: Path,
        prompts: Prompts,
        config: TopologyConfig,
        *,
        base: Checkpoint | None,
        reading: dict[str, Any],
        manner: Manner,
    ) -> None:
        self._name, self._identity, self._output = name, identity, output
        self._prompts, self._config, self._reading, self._manner = prompts, config, reading, manner
        self._base, self._read_probe = base, prompts.reader(config)
        self._probe: Callable[[], Probe] | None = None
        self._last: Probe | None = None

    @property
    def begun(self) -> bool:
        return self._probe is not None

    def check(self, begun: bool, base_is_read: bool) -> None:
        """Check what does not wait for a checkpoint.

        Args:
            begun: steps are recorded.
            base_is_read: step 0 is recorded, so that the base need not be there any more.

        Raises:
            ProbeError: no prompts. RecordError: of a folder without a run. ConfigurationError: the base cannot be read,
                or step 0 would come after recorded ones.
        """
        self._prompts.check()
        if self._base is None or base_is_read:
            return
        if begun:
            raise ConfigurationError(
                f"{self._output / self._name} was begun without step 0; leave --base out, or give another --output-dir"
            )
        try:
            check_checkpoint(self._base, allow_pickle=self._manner.allow_pickle)
        except UnreadableCheckpointError as error:
            raise ConfigurationError(f"--base {self._base.label} cannot be read: {error}") from error

    def plan(self, checkpoints: list[Checkpoint]) -> Plan:
        """Plan checkpoints, ascending in step, and make the folder where it is not there.

        Raises:
            UnreadableCheckpointError: none of them can be read, or they are unlike those that were planned before.
            ConfigurationError: the first ones do not fit what is there already. ProbeError, RecordError: as
                `plan_series` and `make_folder` say.
        """
        try:
            plan = make_folder(
                plan_series(
                    CheckpointSeries(self._name, self._identity, tuple(checkpoints)),
                    self._output,
                    self._config,
                    self._probe_of,
                    **self._reading,
                    device=self._manner.devices[0],
                    allow_pickle=self._manner.allow_pickle,
                )
            )
        except ConfigurationError as error:
            if self.begun:
                raise UnreadableCheckpointError(str(error)) from error
            raise
        self._probe = self._probe or _always(self._last)
        name_latest(self._output, self._name)
        return plan

    def _probe_of(self, folders: list[Path]) -> Probe:
        """The prompts in tokens; of a tokenizer that is not whole, its checkpoint is not."""
        if self._probe is not None:
            return self._probe()
        if self._base is not None:
            with contextlib.suppress(UnreadableCheckpointError):  # gone since it was read
                folders = [*check_checkpoint(self._base, allow_pickle=self._manner.allow_pickle).folders, *folders]
        self._prompts.check_tokenizer(folders)
        self._last = self._read_probe(folders)
        return self._last


def _always(probe: Probe | None) -> Callable[[], Probe]:
    assert probe is not None
    return lambda: probe
