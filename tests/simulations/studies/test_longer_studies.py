"""Studies that go on to another end, and that share no directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedmtl.errors import RunDirectoryError
from simulations.lock import held
from simulations.studies.file import load_study
from simulations.studies.run import is_done, run_cell, run_directory, run_study
from simulations.studies.study import Study

STUDY = """
name = "longer"
seeds = 1
base = {data = {clients = 8}, stop = {versions = 2}, records = {evaluate_every = 1, checkpoint_every = 1}}
[axes.strategy.buffered.strategy]
name = "fedbuff"
buffer_size = 3
"""


def study_of(tmp_path: Path, text: str) -> Study:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return load_study(path)


def test_a_study_whose_end_has_changed_goes_on_with_what_is_there(tmp_path: Path) -> None:
    study, longer = (study_of(tmp_path, (STUDY.replace("= 2", f"= {end}"))) for end in (2, 4))
    other = study_of(tmp_path, (STUDY.replace("size = 3", "size = 2")))
    (cell,), (later,) = study.cells(), longer.cells()
    kept, at_once = tmp_path / "kept", tmp_path / "at once"
    run_cell((cell, str(kept)))
    assert run_study(study, kept, workers=1, progress=print) == []  # nothing is missing, so that no Ray is started
    assert is_done(kept, cell)
    assert not is_done(kept, later)
    before = (run_directory(kept, cell) / "checkpoint" / "state.safetensors").stat().st_mtime_ns
    run_cell((cell, str(kept)))
    assert (run_directory(kept, cell) / "checkpoint" / "state.safetensors").stat().st_mtime_ns > before
    run_cell((later, str(kept)))
    run_cell((later, str(at_once)))
    tables = [f"{name}.parquet" for name in ("updates", "aggregations", "evaluations")]
    paths = [[run_directory(out, cell) / name for name in tables] for out in (kept, at_once)]
    assert [p.read_bytes() for p in paths[0]] == [p.read_bytes() for p in paths[1]]
    assert run_study(longer, kept, workers=1, progress=print) == []
    with pytest.raises(RunDirectoryError, match="differs in more than its ends"):
        run_study(other, kept, workers=1, progress=print)
    run_cell((cell, str(kept)))  # an earlier end: it is run anew
    assert is_done(kept, cell)


def test_two_studies_do_not_share_a_directory(tmp_path: Path) -> None:
    study = study_of(tmp_path, STUDY)
    with held(tmp_path / "out"), pytest.raises(RunDirectoryError, match="out is in use by process"):
        run_study(study, tmp_path / "out", workers=1, progress=print)
