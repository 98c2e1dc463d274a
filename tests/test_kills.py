"""Row 6 of the list of faults, and 28: the trainer is killed at random moments, and what it recorded survives."""

from __future__ import annotations

import pytest
from killed_runs import MAX_STEPS, KilledRun, kill_runs
from small_runs import fork_server

KILLS = 20  # benchmarks/kills.py: 200
pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def killed(engines_ready: None, tmp_path_factory: pytest.TempPathFactory) -> list[KilledRun]:
    with fork_server() as context:
        return kill_runs(context, tmp_path_factory.mktemp("kills"), KILLS, seed=6)


def test_the_kills_come_at_every_stage_of_a_run(killed: list[KilledRun]) -> None:
    assert sum(not run.ended for run in killed) >= KILLS * 0.9
    assert any(run.state is None for run in killed), "before there is a folder"
    assert any(run.spooled and not run.recorded for run in killed), "before the worker is ready"
    assert any(run.recorded for run in killed), "while it measures"
    assert any(run.children for run in killed)


def test_fault_6_after_a_kill_everything_on_disk_is_readable(killed: list[KilledRun]) -> None:
    assert [run for run in killed if run.unreadable] == []


def test_fault_6_at_most_the_last_sample_is_lost_by_a_kill(killed: list[KilledRun]) -> None:
    assert [run for run in killed if run.lost and run.lost != run.handed_over[-1:]] == []


def test_fault_6_what_a_kill_left_in_the_spool_is_measured_by_finish(killed: list[KilledRun]) -> None:
    for run in killed:
        assert set(run.completed) == set(run.handed_over) - set(run.lost), run
        assert run.left_over == (), run


def test_fault_6_the_chain_of_a_killed_run_holds_and_finish_closes_it(killed: list[KilledRun]) -> None:
    assert [run for run in killed if run.contradicted] == []
    assert [run for run in killed if (run.contradicted is None) != (run.state is None)] == []


def test_fault_6_a_killed_run_is_reported_as_interrupted(killed: list[KilledRun]) -> None:
    # a run may be killed between its last entry in the journal and its exit
    wrong = [
        run
        for run in killed
        if run.state not in ("interrupted", None) and not (run.state == "finished" and MAX_STEPS in run.handed_over)
    ]
    assert wrong == []
    # without a folder nothing can have been handed over
    assert [run for run in killed if run.state is None and run.handed_over] == []


def test_fault_28_after_a_kill_no_process_lives_and_no_pipe_is_held_for_5_seconds(killed: list[KilledRun]) -> None:
    assert max(run.orphan_seconds for run in killed) < 5
