"""Verification: whether a run's folder is what its chain says, and what can be said without one.

With a chain every byte of the record is compared with the digests of the links. What came after the newest link of a
run that was not closed, and all of a run of an older version, has no more than what each record says of itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo_callback.config import TopologyConfig
from topo_callback.errors import ConfigurationError, RecordError, described
from topo_callback.libraries import code_version
from topo_callback.records.chain import Chain, Link
from topo_callback.records.folder import TrajectoryFolder
from topo_callback.records.held import Differences, differences
from topo_callback.records.record import read_record

WHOLE, CONTRADICTED, PARTLY = "whole", "contradicted", "partly"
_TRIES = 5  # of a run that goes on, which may add a link meanwhile


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        folder: of the run.
        state: as of `Trajectory.state`, "running" while a process writes the folder.
        links: in the chain; 0 without one.
        head: of its newest link, hexadecimal; "" without one.
        files: how many are exactly as the chain has them.
        contradicted: what is not as it was recorded, in words.
        uncovered: what nothing vouches for, in words.
        notes: what else is to be known.
    """

    folder: Path
    state: str
    links: int
    head: str
    files: int
    contradicted: tuple[str, ...]
    uncovered: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def outcome(self) -> str:
        """`contradicted`, `partly` where something is not vouched for, else `whole`."""
        if self.contradicted:
            return CONTRADICTED
        return PARTLY if self.uncovered else WHOLE


def verify_folder(folder: TrajectoryFolder, kept_head: str | None = None) -> Verification:
    """Compare a folder with its chain. Nothing is written.

    Args:
        folder: of the run.
        kept_head: a head that was printed earlier and kept elsewhere; it must be one of this chain's.

    Raises:
        RecordError: run.json cannot be read and there is no chain that says anything of it. OSError: the disk refuses.
    """
    running = folder.is_locked()
    for _ in range(_TRIES if running else 1):
        chain = Chain.read(folder, thorough=True)
        now = chain.digests.all()
        found = differences(chain.held, now, chain.digests, chain.is_open)
        if not found.contradicted or Chain.read(folder).head == chain.head:
            break
    covered = [name for name, held in now.items() if chain.held.get(name) == held]
    contradicted = [*_of_the_chain(chain), *_of_the_folder(chain, found)]
    if kept_head is not None and kept_head not in [link.head for link in chain.links]:
        contradicted.append(f"the head {kept_head} that was kept is none of this chain's: it was written anew, or cut")
    others = {name: now[name].size for name in now if name not in covered}
    contradicted += [said for said in _of_records(folder, others) if said not in contradicted]
    if not chain.links:
        folder.read_run()
    return Verification(
        folder.path, "running" if running else "closed" if chain.links and chain.is_open is None else "open",
        len(chain.links), chain.head, len(covered), tuple(contradicted), tuple(_uncovered(folder, chain, found)),
        tuple(_notes(chain)),
    )  # fmt: skip


def _of_the_chain(chain: Chain) -> Iterator[str]:
    if chain.damage:
        yield f"the chain: {chain.damage}"
    for number, link in enumerate(chain.links, 1):
        if "damaged" in link.details:
            yield f"the chain: an earlier one is damaged ({link.details['damaged']}), see {link.details.get('beside')}"
        for name, said in link.contradicted.items():
            yield f"{name}: {said}, found when {_named(number, link)} was added"


def _of_the_folder(chain: Chain, found: Differences) -> Iterator[str]:
    if not chain.links:
        return
    last = _named(len(chain.links), chain.links[-1])
    for name, said in found.contradicted.items():
        yield f"{name}: {said} since {last}"


def _of_records(folder: TrajectoryFolder, names: Iterable[str]) -> Iterator[str]:
    """Of records that no link vouches for: what they say of themselves, and of the run that they belong to."""
    run: dict[str, Any] = {}
    try:
        run = folder.read_run()
        config = TopologyConfig.from_dict(run["config"])
        same_settings = run["config"].keys() == config.to_dict().keys()  # as this version has
        if same_settings and run.get("config_hash", config.hash) != config.hash:
            yield "run.json: the settings are not those of its own digest"
    except (RecordError, ConfigurationError, TypeError, KeyError, ArithmeticError, AttributeError) as error:
        yield f"run.json: {error if isinstance(error, RecordError) else described(error)}"
    for name in sorted(names):
        if not name.endswith(".npz"):
            continue
        try:
            _, manifest = read_record(folder.path / name)
        except FileNotFoundError:
            continue  # dropped since its name was read, by a run that goes on
        except (RecordError, OSError) as error:
            yield f"{name}: {error if isinstance(error, RecordError) else described(error)}"
            continue
        yield from _against_the_run(name, manifest, run)


def _against_the_run(name: str, manifest: dict[str, Any], run: dict[str, Any]) -> Iterator[str]:
    step = manifest.get("step")
    if name.startswith("samples/") and name != f"samples/step-{step:08d}.npz":
        yield f"{name}: holds the sample of step {step}"
    provenance = manifest.get("provenance")
    said = provenance if isinstance(provenance, dict) else {}
    probe = run.get("probe")
    pairs = {
        "run": (said.get("run_id"), run.get("run_id")),
        "probe": (said.get("probe_hash"), probe.get("hash") if isinstance(probe, dict) else None),
    }
    for what, (of_sample, of_run) in pairs.items():
        if None not in (of_sample, of_run) and of_sample != of_run:
            yield f"{name}: is of another {what} ({of_sample}) than run.json says ({of_run})"


def _uncovered(folder: TrajectoryFolder, chain: Chain, found: Differences) -> Iterator[str]:
    if not chain.links:
        yield (
            "there is no chain: samples, distances and fingerprints have checksums of their own, which were compared; "
            "run.json, the journal, the tables of steps, pictures and the page have none, and records that were "
            "removed, added or swapped leave no trace"
        )
        return
    if chain.links[0].details.get("adopted"):
        yield (
            f"{len(chain.links[0].files)} files were there when the chain began, {_when(chain.links[0])}; what became "
            "of them before is not known"
        )
    for name, said in found.own.items():
        yield f"{name}: {said} since {_named(len(chain.links), chain.links[-1])}, as a run that goes on does"
    if chain.is_open is not None and not found.own:
        yield "the run was not closed: links may be missing at the end; `topo-callback finish` closes it"
    elif chain.is_open is not None:
        yield "`topo-callback finish` measures what waits and closes the chain"


def _notes(chain: Chain) -> Iterator[str]:
    foreign = chain.digests.foreign()
    if foreign:
        yield f"not part of the record, nothing is said of it: {', '.join(foreign)}"
    codes = {str(link.details["code"]["sha256"]): link.details["code"] for link in chain.links if _has_code(link)}
    here = code_version()
    for digest, code in codes.items():
        same = "the code that is installed here" if digest == here["sha256"] else "other code than is installed here"
        yield f"written by topo_callback {code.get('version')}, modules {digest[:16]}: {same}"


def _has_code(link: Link) -> bool:
    code = link.details.get("code")
    return isinstance(code, dict) and "sha256" in code


def _named(number: int, link: Link) -> str:
    return f"link {number} ({link.event}, {_when(link)})"


def _when(link: Link) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(link.time))
