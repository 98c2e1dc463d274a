"""The subcommand `topo-callback scan`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topo_callback.commands.arguments import positive

if TYPE_CHECKING:
    from topo_callback.scan.scanning import Scanned


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand; nothing that it needs is imported before it runs."""
    parser = commands.add_parser(
        "scan",
        help="record the trajectory of checkpoints that are there already, or models side by side",
        description="Reads the same prompts from every checkpoint and writes a trajectory like that of the callback. "
        "The checkpoint-* folders of an output_dir are one trajectory, and so are revisions of one hub model and "
        "models of one shape; others get their own. May be interrupted and run again at any moment. Opens safetensors "
        "and JSON only.",
        epilog="example: topo-callback scan runs/sft --base Qwen/Qwen2.5-0.5B --probe prompts.txt",
    )
    parser.add_argument(
        "checkpoints",
        nargs="+",
        metavar="CHECKPOINT",
        help="a hub name, NAME@REVISION, a folder with a model or PEFT adapter, or the output_dir of a Trainer",
    )
    parser.add_argument("--base", metavar="NAME", help="the model that training began with, as step 0")
    parser.add_argument("--separate", action="store_true", help="models of one shape are no trajectory")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("topo-callback-scan"), help="where trajectory folders go"
    )
    what = parser.add_argument_group("what is read")
    what.add_argument(
        "--probe",
        type=Path,
        metavar="FILE",
        help="prompts: one per line, or JSON with rows; or a run with keep_prompts, whose probe is taken",
    )
    what.add_argument(
        "--dataset", metavar="NAME", help="draw prompts from a hub data set (NAME or NAME:CONFIGURATION) or JSONL file"
    )
    what.add_argument("--tokenizer", metavar="NAME", help="of another model or folder than the checkpoint's own")
    what.add_argument("--config", type=Path, metavar="FILE", help="settings of TopologyConfig, in YAML or JSON")
    what.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="assignments",
        help="one setting, as layers=all",
    )
    what.add_argument("--preset", metavar="NAME", help="economy, standard or full")
    what.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    what.add_argument(
        "--autocast",
        choices=("as-trained", "none", "bfloat16", "float16"),
        default="as-trained",
        help="how forward passes are cast (default: as in the run's own trajectory, where there is one)",
    )
    what.add_argument(
        "--attention",
        choices=("as-trained", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"),
        default="as-trained",
        help="implementation of the attention (default: likewise, else what transformers chooses)",
    )
    what.add_argument("--seed", type=int, metavar="N", help="training seed of the run, recorded for compare")
    what.add_argument(
        "--affinity", action="store_true", help="of exactly two models: which layers see the same neighbours"
    )
    how = parser.add_argument_group("how it is carried out")
    how.add_argument("--jobs", type=positive, default=1, metavar="N", help="checkpoints read side by side (default: 1)")
    how.add_argument(
        "--device", default="cpu", metavar="NAME[,NAME...]", help="where models go, in turn (default: cpu)"
    )
    how.add_argument("--backend", choices=("loky", "dask", "ray"), default="loky", help="of joblib, for --jobs")
    how.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask or Ray cluster (default: a local one)")
    how.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="read the I-th of N parts; the last part that is done is measured with",
    )
    how.add_argument(
        "--allow-pickle", action="store_true", help="open pickled weights too; they can run code, so trust their maker"
    )
    parser.set_defaults(run=_scan)


def _scan(given: argparse.Namespace) -> None:
    from topo_callback.errors import ConfigurationError
    from topo_callback.scan.finding import find_series
    from topo_callback.scan.opening import check_device
    from topo_callback.scan.prompts import Prompts
    from topo_callback.scan.running import require_backend
    from topo_callback.scan.scanning import Manner, scan
    from topo_callback.settings import scan_settings

    manner = Manner(
        jobs=given.jobs,
        devices=tuple(given.device.split(",")),
        backend=given.backend,
        scheduler=given.scheduler,
        shard=given.shard,
        allow_pickle=given.allow_pickle,
    )
    require_backend(manner.backend, manner.jobs)
    if manner.scheduler is not None and manner.backend == "loky":
        raise ConfigurationError("--scheduler is of a Dask or Ray cluster; add --backend dask or --backend ray")
    for device in manner.devices:
        check_device(device)
    config = scan_settings(given.config, given.assignments, given.preset)
    prompts = Prompts(file=given.probe, dataset=given.dataset, tokenizer=given.tokenizer)
    series = find_series(given.checkpoints, base=given.base, separate=given.separate or given.affinity)
    if given.affinity and len(series) != 2:
        raise ConfigurationError(f"--affinity is of exactly two models; these are {len(series)}")
    progress = _Bar()
    try:
        results = scan(
            series,
            prompts,
            given.output_dir,
            config,
            dtype=given.dtype,
            autocast=given.autocast,
            attention=given.attention,
            seed=given.seed,
            manner=manner,
            progress=progress,
        )
    except KeyboardInterrupt:
        progress.end()
        sys.stderr.write("topo-callback: interrupted; what is done stays, run the same again to go on\n")
        raise SystemExit(130) from None
    finally:
        progress.end()
    for result in results:
        _summarise(result)
    if given.affinity:
        _affinity(results, given.output_dir)


def _summarise(result: Scanned) -> None:
    out = sys.stdout
    for step, (label, reason) in result.skipped.items():
        out.write(f"{result.name}: step {step} ({label}) left out: {reason}\n")
    if result.folder is None:
        return
    recorded = len(result.steps) - len(result.skipped)
    if result.waiting:
        out.write(
            f"{result.name}: {len(result.read)} read now; {len(result.waiting)} of {len(result.steps)} still to be "
            "read by other shards; the last one measures\n"
        )
    else:
        out.write(
            f"{result.name}: {recorded} of {len(result.steps)} checkpoints in {result.folder} "
            f"({len(result.read)} read now, {len(result.measured)} measured now)\n"
        )


def _affinity(results: list[Scanned], output_dir: Path) -> None:
    from topo_callback.records.trajectory import Trajectory
    from topo_callback.scan.affinity import affinity_of, write_affinity

    folders = [result.folder for result in results if result.folder is not None and not result.waiting]
    if len(folders) < 2:
        sys.stdout.write("no affinity yet: one of the two models is not recorded\n")
        return
    affinity = affinity_of(Trajectory.load(folders[0]), Trajectory.load(folders[1]))
    written = write_affinity(affinity, output_dir)
    near, far = (affinity.diagonal.get(where) for where in ("near", "far"))
    out = sys.stdout
    out.write(
        f"affinity of {affinity.names[0]} (rows) and {affinity.names[1]} (columns), chance {affinity.chance:.3f}\n"
    )
    out.write("layer  " + " ".join(f"{layer:>5}" for layer in affinity.layers[1]) + "\n")
    for layer, row in zip(affinity.layers[0], affinity.matrix.tolist(), strict=True):
        out.write(f"{layer:>5}  " + " ".join(f"{value:5.2f}" for value in row) + "\n")
    means = [
        f"{value:.3f} {where} equal relative depth"
        for where, value in (("near", near), ("far from", far))
        if value is not None
    ]
    p_value = "" if affinity.test is None else f"; corresponding depths agree, p = {affinity.test.p_value:.4f}"
    out.write(f"mean {', '.join(means)}{p_value}\n")
    out.write(f"wrote {', '.join(path.name for path in written)} in {output_dir}\n")


class _Bar:
    """A progress bar with the time left, on a terminal only."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress: Any = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task: Any = None

    def begin(self, what: str, total: int) -> None:
        self._progress.start()
        self._task = self._progress.add_task(what, total=total)

    def advance(self) -> None:
        self._progress.advance(self._task)

    def end(self) -> None:
        self._progress.stop()


def _shard(text: str) -> tuple[int, int]:
    part, separator, parts = text.partition("/")
    try:
        shard = int(part), int(parts)
    except ValueError:
        shard = 0, 0
    if not separator or not 1 <= shard[0] <= shard[1]:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: I/N with 1 <= I <= N")
    return shard
