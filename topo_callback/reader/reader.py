"""Reader: from the model at one step to a Sample, on one rank or many.

Beside the distances, a sample keeps of the points where they are, how large, and along which axis they vary most.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from topo_callback.capture import (
    NextTokens,
    model_device,
)
from topo_callback.capture.batches import SHARED
from topo_callback.devices import HostCopies, MemoryAccount, where_wide
from topo_callback.distributed.turns import (
    OUT_OF_MEMORY,
    AgreedError,
    Read,
    asked,
    assembled,
    assembled_tokens,
)
from topo_callback.geometry import layer_distances, looked_at, nearest_neighbours
from topo_callback.reader.agreed_reading import AgreedReading, ReadingError
from topo_callback.reader.means import group_facts, left_out_means, norms_of, point_facts
from topo_callback.records.sample import Sample
from topo_callback.studies import Reading, StudyResults
from topo_callback.wording import counted

__all__ = ["Reader", "ReadingError"]


class Reader(AgreedReading):
    """Reads a fixed probe from a model; how is settled by `agree`, see `AgreedReading`, whose attributes it has."""

    def read(self, model: nn.Module, step: int, facts: Mapping[str, Any]) -> Sample | None:
        """One sample, on the first rank; None on the others. All ranks call this together.

        Raises:
            ReadingError: on every rank when the model could not be read on one of them (out of memory halves the batch
                and tries once more, then once without a shared beginning); the message names the rank and its error.
                On the first rank also when the distances do not fit in memory.
        """
        if self._unproved:
            self._prove_late(model)
        elif self._readings == 1 and self.rows == SHARED:
            self._prove_again(model)
        self._readings += 1
        started = time.perf_counter()
        device = model_device(model)
        memory, copies = MemoryAccount(device), HostCopies()
        dtypes: dict[int, torch.dtype] = {}
        read = self._read_clouds(model, dtypes)
        forward_seconds = time.perf_counter() - started
        general = self._general.read(model, self.batch_size, self._next_token_missing, copies)
        read_seconds = time.perf_counter() - started
        forwards = self._turns.forwards
        variants = self._studies.read(model, self.batch_size) if self._config.studies else {}
        study_seconds = time.perf_counter() - started - read_seconds
        if not self._ranks.first:
            return None
        resumed = time.perf_counter()
        try:
            clouds, of_tokens = assembled(self._batches, read.columns, len(self._taken), device)
            read.columns.clear()
            next_token_codes = self._next_token_codes(read.codes, copies)
            read.codes.clear()
            distances, neighbours, invalid = self._geometry(clouds, copies)
            of_points = self._point_facts(where_wide(clouds), invalid, copies)
            token_cloud = self._token_geometry(read.tokens, device, copies)
            tokens = np.empty(tuple(of_tokens.shape), dtype=np.float32)
            copies.into(tokens, of_tokens)
            copies.wait()
        except torch.OutOfMemoryError as error:
            raise ReadingError(f"out of memory for the distances of {self._most_points} points") from error
        del of_tokens
        geometry_seconds = time.perf_counter() - resumed
        of_general = general.pop("facts")
        results = StudyResults()
        if self._config.studies:
            results = self._study_numbers(model, step, clouds, tokens, variants)
            facts = {
                **facts,
                "study_seconds": round(study_seconds + time.perf_counter() - resumed - geometry_seconds, 6),
                "study_forwards": self._turns.forwards - forwards,
            }
        del clouds  # so that what is kept is what nobody gives back
        own = len(self._token_measures)
        sample = Sample(
            step=step,
            layers=self.layers,
            distances=distances,
            neighbours=neighbours,
            invalid=invalid,
            token_measures=self._token_measures,
            token_numbers=tokens[:, :own] if own else None,
            next_token_points=() if next_token_codes is None else self._next_token_points,
            next_token_codes=next_token_codes,
            **of_points,
            **token_cloud,
            study_numbers=results.numbers,
            study_missing=results.missing,
            **general,
            facts={
                **facts,
                **of_general,
                **memory.facts(),
                **({"next_token_missing": read.missing} if read.missing else {}),
                **({"token_cloud_missing": self._no_token_cloud} if self._no_token_cloud else {}),
                "dtype": ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in dtypes.values()})),
                "probe_batch": self.batch_size,
                "probe_rows": self.rows,
                "forward_seconds": round(forward_seconds, 6),
                "geometry_seconds": round(geometry_seconds, 6),
            },
        )
        return self._with_words(model, sample)

    def _with_words(self, model: nn.Module, sample: Sample) -> Sample:
        """The sample with what its drift says, where that was asked for."""
        if not self.drift_lens.wanted:
            return sample
        started = time.perf_counter()
        words = self.drift_lens.read(model, sample)
        seconds = round(time.perf_counter() - started, 6)
        return replace(sample, drift_words=words, facts={**sample.facts, "drift_words_seconds": seconds})

    @property
    def _no_token_cloud(self) -> str:
        """Why there is no token cloud though one was asked for."""
        if self._config.token_cloud == 0 or self._token_cloud is not None:
            return ""
        if self.kind == "encoder-decoder":
            return "the decoder of an encoder-decoder is given one token"
        return f"a token cloud needs more than {self._config.neighbours} different tokens"

    def _study_numbers(
        self,
        model: nn.Module,
        step: int,
        clouds: Float[Tensor, "layers points width"],
        tokens: Float[np.ndarray, "layers measures points"],
        variants: Mapping[str, Reading | str],
    ) -> StudyResults:
        """The numbers of the studies, from the probe's clouds and tokens and the readings of its variants."""
        columns = [self._taken.index(name) for name in self._studies.token_measures]
        return self._studies.numbers(
            model, step, self._probe, clouds, torch.from_numpy(tokens[:, columns]), variants, self.layers, self._batches
        )

    def _read_clouds(self, model: nn.Module, dtypes: dict[int, torch.dtype]) -> Read:
        """What all batches gave, on the first rank; nothing on the others."""
        while True:
            try:
                return self._turns.read(
                    model,
                    self._batches,
                    token_measures=self._taken,
                    next_tokens=self._next_tokens(),
                    token_cloud=self._token_cloud,
                    dtypes=dtypes,
                )
            except AgreedError as error:
                code, cause = error.code, error.cause
            # here nothing holds the memory of the attempt any more
            rows = self.rows
            if code == OUT_OF_MEMORY and self._save_memory():
                if self.rows != rows:  # not proved yet
                    self._prove(model)
                try:
                    self._turns.together(lambda: self._make_batches(self.batch_size))
                    continue
                except AgreedError as error:
                    cause = error.cause
                raise ReadingError(cause)
            if code == OUT_OF_MEMORY:
                cause = f"out of memory with {counted(self.batch_size, 'prompt')} per forward pass ({cause})"
            raise ReadingError(cause)

    def _next_tokens(self) -> NextTokens | None:
        """What listens for next-token distributions, where they are wanted; it knows if they would be wrong."""
        if not self._next_token_points:
            return None
        listener = NextTokens(self._next_token_points)
        listener.missing = self._next_token_missing
        return listener

    @property
    def _next_token_missing(self) -> str:
        """Why next-token distributions of this model would be wrong, or nothing."""
        return "" if self.proof is None else self.proof.next_token_missing

    def _point_facts(
        self, clouds: Float[Tensor, "layers points width"], invalid: dict[int, str], copies: HostCopies
    ) -> dict[str, Any]:
        """What a Sample has of the points beside their distances, by the names of its fields."""
        groups = self._probe.groups
        found: dict[str, Any] = point_facts(clouds, self.layers, invalid, self._config.metric, copies)
        found |= group_facts(clouds, self.layers, invalid, groups, self._config.errors, copies)
        found |= self.directions.projections(clouds, self.layers, invalid, copies)
        if self.directions or self.drift_lens.wanted:
            found["left_out_means"] = left_out_means(clouds, self.layers, invalid, groups, copies)
        return found

    def _next_token_codes(
        self, gathered: list[Float[Tensor, "one rows vocabulary"]], copies: HostCopies
    ) -> np.ndarray | None:
        """The codes of the next-token probabilities, float16 [prompts asked for, vocabulary], in probe order."""
        if not gathered:
            return None
        place = {point: row for row, point in enumerate(self._next_token_points)}
        codes = np.empty((len(place), gathered[0].shape[2]), dtype=np.float16)
        for batch, part in zip(self._batches, gathered, strict=False):
            rows = [place[point] for point in asked(batch, self._next_token_points)]
            copies.into(codes, part[0, : len(rows)], rows)
        return codes

    def _token_geometry(
        self, gathered: list[Float[Tensor, "layers rows width"]], device: torch.device, copies: HostCopies
    ) -> dict[str, Any]:
        """What a Sample has of the token cloud, by the names of its fields."""
        if self._token_cloud is None:
            return {}
        states = assembled_tokens(self._batches, gathered, self._token_cloud, device)
        gathered.clear()
        distances, neighbours, invalid = self._geometry(states, copies)
        return {
            "token_places": np.array(self._token_cloud.places, dtype=np.int32),
            "token_distances": distances,
            "token_neighbours": neighbours,
            "token_norms": norms_of(where_wide(states), self.layers, invalid, self._config.metric, copies),
            "token_invalid": invalid,
        }

    def _geometry(
        self, clouds: Float[Tensor, "layers points width"], copies: HostCopies
    ) -> tuple[np.ndarray, np.ndarray | None, dict[int, str]]:
        """Distances float32 [layers, pairs], neighbours int32 [layers, points, k], and the layers without them.

        Without an accelerator the neighbours are left to the worker, which gets the same ones from the distances.
        """
        points, k = clouds.shape[1], self._config.neighbours
        distances = np.zeros((len(self.layers), points * (points - 1) // 2), dtype=np.float32)
        here = clouds.device.type != "cpu"
        neighbours = np.full((len(self.layers), points, k), -1, dtype=np.int32) if here else None
        invalid: dict[int, str] = {}
        metric, budget = self._config.metric, self._config.device_bytes
        seen = looked_at(clouds, metric=metric)
        for layer, (bad, _) in zip(self.layers, seen, strict=True):
            if bad:
                invalid[layer] = f"{bad} of {points} points have no distance (not finite, or without direction)"
        rows = [row for row, (bad, _) in enumerate(seen) if not bad]
        one_point = [seen[row][1] for row in rows]
        valid = [clouds[row] for row in rows]
        found = layer_distances(valid, metric=metric, device_bytes=budget, one_point=one_point) if rows else ()
        for row, condensed in zip(rows, found, strict=True):
            copies.into(distances, condensed, row)
            if neighbours is not None:
                copies.into(neighbours, nearest_neighbours(condensed, k), row)
        return distances, neighbours, invalid
