"""The series detector: what is unusual scores high, and no file breaks it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from sternpost_eagle_eye.cli import app
from sternpost_eagle_eye.series import score_series
from sternpost_eagle_eye.series.command import SeriesError, read_series


def server(rows: int = 1500, columns: int = 8, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    load = np.sin(np.arange(rows) / 40) + 0.1 * random.normal(size=rows)
    return load[:, None] * random.uniform(0.5, 2, columns) + 0.05 * random.normal(size=(rows, columns))


def ratio(scores: np.ndarray, rows: slice) -> float:
    outside = np.delete(scores, np.r_[max(0, rows.start - 60) : rows.stop + 60])
    return float(scores[rows].mean() - np.percentile(outside, 99))


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("columns", [1, 8])
def test_what_was_never_seen_scores_high(columns, online):
    values = server(columns=columns)
    spike = slice(1200, 1215)
    values[spike] += 6
    assert ratio(score_series(values, 600, online=online), spike) > 0


@pytest.mark.parametrize("online", [False, True])
def test_a_broken_correlation_scores_high_within_all_limits(online):
    values = server()
    values[1200:1230, 3] = -values[1200:1230, 3]
    scores = score_series(values, 600, online=online)
    assert scores[1205:1230].mean() > np.percentile(scores[:1100], 95)


def test_online_no_score_depends_on_a_later_row():
    values = server()
    values[700, 2] = np.nan
    whole = score_series(values, 600, online=True)
    later = values.copy()
    later[1000:] = 1e6
    np.testing.assert_allclose(score_series(values[:1000], 600, online=True), whole[:1000], atol=1e-9)
    np.testing.assert_allclose(score_series(later, 600, online=True)[:1000], whole[:1000], atol=1e-9)


def test_constant_columns_change_nothing_offline():
    values = server()
    constant = np.full((len(values), 2), 7.0)
    np.testing.assert_allclose(
        score_series(np.hstack([values, constant]), 600), score_series(values, 600), rtol=1e-6, atol=1e-6
    )


def test_the_unit_of_a_column_does_not_matter():
    values = server()
    scaled = values * np.array([1e-9, 1e9, 1, 3, 1e20, 5, 1e-3, 1])
    np.testing.assert_allclose(score_series(scaled, 600), score_series(values, 600), rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(
    arrays(
        float,
        st.tuples(st.integers(0, 40), st.integers(0, 5)),
        elements=st.floats(allow_nan=True, allow_infinity=True),
    ),
    st.integers(0, 60),
    st.booleans(),
)
def test_every_array_has_a_finite_score_for_each_row(values, train_rows, online):
    scores = score_series(values, train_rows, online=online)
    assert scores.shape == (len(values),)
    assert np.isfinite(scores).all()


def test_many_columns_and_few_rows():
    assert np.isfinite(score_series(np.random.default_rng(0).normal(size=(300, 120)), 200)).all()


def test_the_command_prints_a_number_a_row_and_leaves_out_the_label(tmp_path):
    values = server(400, 3)
    file = tmp_path / "s.csv"
    rows = [",".join(map(str, row)) for row in values]
    file.write_text("a,b,c\n" + "\n".join(rows) + "\n")
    plain = CliRunner().invoke(app, ["score", str(file), "--train-rows", "200"])
    file.write_text("a,b,c,label\n" + "\n".join(f"{row},{i % 2}" for i, row in enumerate(rows)) + "\n")
    labelled = CliRunner().invoke(app, ["score", str(file), "--train-rows", "200"])
    assert plain.exit_code == labelled.exit_code == 0, plain.output
    assert plain.stdout == labelled.stdout
    assert len([float(line) for line in plain.stdout.split()]) == 400


def test_torn_rows_and_words_are_gaps(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text('time,a,b\n2026-01-01,1,2\n2026-01-02,x\n2026-01-03,3,inf,9\n\n"2026')
    values = read_series(file)
    assert values.shape == (4, 3)
    assert np.isnan(values[:3, 0]).all()
    assert np.isfinite(score_series(values, 2)).all()
    told = CliRunner().invoke(app, ["score", str(file), "--train-rows", "2"])
    assert told.exit_code == 0
    assert len(told.stdout.split()) == 4
    assert "8 of 12 values are no finite numbers and count as gaps, the first in row 1, column 1" in told.stderr


def test_more_training_rows_than_rows_are_refused(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("a\n1\n2\n")
    told = CliRunner().invoke(app, ["score", str(file), "--train-rows", "3"])
    assert (told.exit_code, told.stdout) == (2, "")
    assert "has 2 rows; the first 3 cannot be training rows" in told.stderr


@pytest.mark.parametrize(("text", "why"), [("", "empty"), ("label\n1\n", "nothing to score")])
def test_what_is_no_series_is_refused_in_words(tmp_path, text, why):
    file = tmp_path / "s.csv"
    file.write_text(text)
    with pytest.raises(SeriesError, match=why):
        read_series(file)
    result = CliRunner().invoke(app, ["score", str(file), "--train-rows", "0"])
    assert result.exit_code == 2


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="shape"):
        score_series(np.zeros(5), 1)
    with pytest.raises(ValueError, match="training rows"):
        score_series(np.zeros((5, 1)), -1)
