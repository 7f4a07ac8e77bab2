"""The report: numbers against NumPy and SciPy, nothing lost, nothing invented, one file that stands alone."""

import dataclasses
import json
import re

import numpy as np
import pytest
from scipy import stats

from keras_gevb.experiments import (
    CELLS,
    Protocol,
    Result,
    figures,
    files,
    find,
    load_results,
    measure_alignment,
    measure_width,
    representation,
    representation_figures,
    run_cell,
    tables,
)
from keras_gevb.experiments.__main__ import main
from keras_gevb.experiments.initial import read_width
from keras_gevb.experiments.results import RunFiles
from keras_gevb.experiments.statistics import compare, comparisons, initial_alignment, summarize

GEVB = CELLS["mnist-fc-vectorized-gevb-nonnegative"]
BACKPROP = CELLS["mnist-fc-vectorized-backprop-nonnegative"]
CONV = CELLS["digits-conv-vectorized-gevb-nonnegative"]
TEST_ERRORS = {GEVB: [3.0, 2.0, 2.5], BACKPROP: [2.0, 1.5, 1.0, 9.9], CONV: [4.24]}


def result(cell, seed, test_error, epochs=2, finished="last epoch"):
    alignment = None if cell.learning_rule == "backprop" else [10.0, 20.0]
    measurements = [
        {
            "epoch": epoch,
            "train_error_percent": error / 2,
            "test_error_percent": error,
            "train_loss": 1.0,
            "test_loss": 1.0,
            "alignment_degrees": alignment,
        }
        for epoch, error in enumerate([90.0, 50.0, test_error][: epochs + 1])
    ]
    return Result(cell, seed, Protocol(2, 1), {"keras": "3"}, measurements, epochs, finished)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Results as `run` writes them, with made-up numbers, and a report of them."""
    out = files.open_folder(tmp_path_factory.mktemp("results"), create=True)
    for cell, errors in TEST_ERRORS.items():
        for seed, error in enumerate(errors):
            run_files = RunFiles(out, cell, seed)
            run_files.write_result(result(cell, seed, error))
            run_files.write_timing([1.5, 2.5])
    rng = np.random.default_rng(0)
    maps = (
        (rng.standard_normal((30, 2)), np.array([0.9, 0.8])),
        (rng.standard_normal((30, 2)), np.array([0.7, 0.4])),
    )
    representation.write(RunFiles(out, CONV, 0).representation, *maps, np.arange(30) % 10)
    rows = [
        {
            "dataset": "mnist",
            "width": width,
            "weights": weights,
            "seed": 0,
            "alignment_degrees": [1.0, 2.0, 55.7],
        }
        for width in (64, 128)
        for weights in ("nonnegative", "mixed")
    ]
    files.write_json(out / "width.json", {"schema": files.SCHEMA, "rows": rows})
    # Seed 0 was run as well.
    rows = [{"cell": GEVB.name, "seed": seed, "alignment_degrees": [14.0, 24.0]} for seed in (0, 7)]
    files.write_json(out / "alignment.json", {"schema": files.SCHEMA, "rows": rows})
    assert main(["report", "--out", str(out)]) == 0
    return out


def row_of(folder, *words):
    """The cells of the first table row that begins with these words."""
    lines = (folder / "report.md").read_text().splitlines()
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return next(row for row in rows if row[: len(words)] == list(words))


def test_a_table_row_is_the_mean_and_spread_of_the_last_errors(folder):
    errors = np.array(TEST_ERRORS[GEVB])
    row = row_of(folder, "fully connected", "vectorized", "nonnegative", "GEVB")
    sd = errors.std(ddof=1)
    assert row[4:7] == [f"{errors.mean():.2f} ± {sd:.2f}", "1.87", f"{errors.mean() - 1.87:+.2f}"]
    train = errors / 2
    assert row[7:10] == [f"{train.mean():.2f} ± {sd / 2:.2f}", "0.06", f"{train.mean() - 0.06:+.2f}"]
    assert row[10:] == ["3", "2"]


def test_what_was_not_run_is_marked_and_keeps_its_published_number(folder):
    row = row_of(folder, "locally connected", "conventional", "mixed-sign", "DFA")
    assert row[4:] == ["not run", "1.48", "", "not run", "0.09", "", "0", ""]
    assert (folder / "report.md").read_text().count("not run |") == 2 * (48 - 2 + 24 - 1)


def test_one_seed_has_no_spread(folder):
    tables = (folder / "report.md").read_text().split("Table 3. Digits")[1]
    row = next(line for line in tables.splitlines() if line.startswith("| convolutional | vectorized"))
    assert [word.strip() for word in row.split("|")][5:9] == ["4.24", "2.12", "1", "2"]


def test_paired_tests_use_the_seeds_that_both_have(folder):
    a, b = np.array(TEST_ERRORS[GEVB]), np.array(TEST_ERRORS[BACKPROP])[:3]
    p = stats.ttest_rel(a, b).pvalue
    row = row_of(folder, "MNIST", "fully connected", "nonnegative", "GEVB (vectorized)")
    assert row[4:] == ["backpropagation (vectorized)", f"{(a - b).mean():+.2f}", "3", f"{p:.3f}"]


def test_alignment_before_training_takes_each_seed_once(folder):
    angles = np.array([10.0, 10.0, 10.0, 14.0])  # seeds 0 to 2 of the runs, 7
    row = row_of(folder, "MNIST", "fully connected", "GEVB", "nonnegative", "1")
    assert row[5:] == [f"11.0 ± {angles.std(ddof=1):.1f}", "10.0", "9.2", "+1.8", "4"]


@pytest.mark.parametrize("draw", [figures.learning_curves, figures.alignment_in_training])
def test_epochs_on_an_axis_are_whole(draw):
    figure = draw(summarize([result(GEVB, 0, 50.0, epochs=1)]))
    for ax in figure.axes:
        assert {0, 1} <= set(ax.get_xticks())
        assert all(mark == round(mark) for mark in ax.get_xticks())


@pytest.mark.parametrize(
    "errors", [([1.0], [2.0]), ([1.0, 2.0], [2.0, 3.0])], ids=["one seed", "equal differences"]
)
def test_there_is_no_p_value_without_variation(errors):
    runs = [
        result(cell, seed, error)
        for cell, column in zip((GEVB, BACKPROP), errors, strict=True)
        for seed, error in enumerate(column)
    ]
    comparison = compare(*summarize(runs).values())
    assert comparison.p is None
    assert comparison.difference == -1


def test_tests_and_order_are_of_finished_runs_by_one_protocol():
    longer = dataclasses.replace(result(BACKPROP, 1, 2.0), protocol=Protocol(9, 1))
    gevb = summarize([result(GEVB, 0, 1.0), result(GEVB, 1, 1.0)])[GEVB]
    comparison = compare(gevb, summarize([result(BACKPROP, 0, 3.0), longer])[BACKPROP])
    assert (comparison.seeds, comparison.difference) == ((0,), -2.0)
    assert compare(gevb, summarize([longer])[BACKPROP]) is None
    assert tables.order({GEVB: gevb, BACKPROP: summarize([longer])[BACKPROP]}).count("<") == 0


def test_rules_are_compared_on_one_data_set_architecture_and_sign_of_weights():
    names = [
        "mnist-fc-vectorized-gevb-nonnegative",
        "mnist-fc-vectorized-gevb-mixed",
        "mnist-fc-vectorized-backprop-nonnegative",
        "mnist-fc-conventional-dfa-mixed",
        "mnist-fc-conventional-dfa-nonnegative",
        "mnist-conv-vectorized-backprop-nonnegative",
        "digits-fc-vectorized-backprop-nonnegative",
    ]
    results = [result(CELLS[name], 0, float(error)) for error, name in enumerate(names)]
    found = [(pair.first.name, pair.second.name, pair.difference) for pair in comparisons(summarize(results))]
    pairs = [(0, 2), (0, 4), (2, 4), (1, 3)]
    assert found == [(names[a], names[b], a - b) for a, b in pairs]


def test_order_lists_the_lowest_test_error_first_within_a_panel():
    errors = {GEVB: 3.0, BACKPROP: 2.0, CELLS["mnist-fc-vectorized-gevb-mixed"]: 1.0}
    lines = tables.order(summarize([result(cell, 0, error) for cell, error in errors.items()])).splitlines()
    assert [line.rsplit(": ", 1)[1] for line in lines] == [
        "backpropagation (vectorized) 2.00 < GEVB (vectorized) 3.00",
        "GEVB (vectorized) 1.00",
    ]


def panel(figure, *words):
    """The axes whose title has all these words."""
    (found,) = (ax for ax in figure.axes if all(word in ax.get_title() for word in words))
    return found


def curves(ax):
    return [list(line.get_ydata()) for line in ax.get_lines() if len(line.get_xdata()) > 2]


def test_learning_curves_show_test_errors_as_test_and_train_errors_as_train():
    figure = figures.learning_curves(summarize([result(GEVB, 0, 4.0), result(GEVB, 1, 2.0)]))
    for which, factor in (("test", 1.0), ("train", 0.5)):  # as `result` makes them
        ax = panel(figure, "vectorized", which)
        assert curves(ax) == [[90 * factor, 50 * factor, 3 * factor]]
        assert ax.get_ylabel() == f"{which} error (%)"


def test_alignment_curves_stand_in_the_panel_of_their_rule_and_weights():
    mixed = result(CELLS["mnist-fc-vectorized-gevb-mixed"], 0, 4.0)
    for number, measurement in enumerate(mixed.measurements):
        measurement["alignment_degrees"] = [80.0 + number, 70.0 + number]
    figure = figures.alignment_in_training(summarize([result(GEVB, 0, 4.0), mixed]))
    assert curves(panel(figure, "GEVB", "nonnegative")) == [[10.0] * 3, [20.0] * 3]
    assert curves(panel(figure, "GEVB", "mixed-sign")) == [[80.0, 81.0, 82.0], [70.0, 71.0, 72.0]]


def test_alignment_against_width_is_the_mean_over_seeds_of_each_layer():
    angles = {("nonnegative", 64): [[8.0, 50.0], [6.0, 52.0]], ("nonnegative", 128): [[4.0, 55.0]]}
    angles |= {("mixed", 64): [[88.0, 91.0]], ("mixed", 128): [[89.0, 90.5]]}
    rows = [
        {"weights": weights, "width": width, "seed": seed, "alignment_degrees": degrees}
        for (weights, width), seeds in angles.items()
        for seed, degrees in enumerate(seeds)
    ]
    (ax,) = figures.alignment_against_width(rows).axes
    shown = dict(zip(ax.get_legend_handles_labels()[1], ax.containers, strict=True))
    expected = {
        "nonnegative, hidden layer 1": [7.0, 4.0],
        "nonnegative, hidden layer 2": [51.0, 55.0],
        "mixed-sign, hidden layer 1": [88.0, 89.0],
        "mixed-sign, hidden layer 2": [91.0, 90.5],
    }
    assert {label: list(bars.lines[0].get_ydata()) for label, bars in shown.items()} == expected


def test_cluster_quality_is_open_before_and_filled_after_training():
    arrays = {"quality_before": np.array([0.9, 0.8]), "quality_after": np.array([0.7, 0.4])}
    figure = representation_figures.cluster_quality({CONV: [arrays]})
    before, after = (line for line in panel(figure, CONV.units, "nonnegative").get_lines())
    assert (before.get_markerfacecolor(), list(before.get_ydata())) == ("white", [0.9, 0.8])
    assert after.get_markerfacecolor() != "white"
    assert list(after.get_ydata()) == [0.7, 0.4]


def test_maps_before_and_after_training_stand_in_their_panels():
    labels, points = np.array([3, 3, 5]), np.arange(6.0).reshape(3, 2)
    arrays = {"labels": labels, "quality_before": np.array([0.8]), "quality_after": np.array([0.4])}
    arrays |= {"map_before": points, "map_after": -points}
    figure = representation_figures.representation_maps({CONV: arrays})
    for when, sign, quality in (("before", 1, "0.80"), ("after", -1, "0.40")):
        ax = panel(figure, "nonnegative", when)
        assert ax.get_xlabel() == f"cluster quality {quality}"
        np.testing.assert_array_equal(np.vstack([c.get_offsets() for c in ax.collections]), sign * points)


def test_widths_are_told_by_layer_and_sign():
    angles = {("mixed", 64): [90.0, 91.0], ("nonnegative", 64): [5.0, 55.0]}
    rows = [
        {"weights": weights, "width": width, "seed": 0, "alignment_degrees": degrees}
        for (weights, width), degrees in angles.items()
    ]
    written = [
        [word.strip() for word in line.strip("|").split("|")] for line in tables.widths(rows).splitlines()
    ]
    assert written[0][2:4] == ["hidden layer 1 (degrees)", "hidden layer 2 (degrees)"]
    assert written[2:] == [
        ["nonnegative", "64", "5.0", "55.0", "1"],
        ["mixed-sign", "64", "90.0", "91.0", "1"],
    ]


def test_an_epoch_takes_its_median_seconds():
    assert tables.times({GEVB: [1.0, 9.0, 2.0]}).splitlines()[-1] == f"| {GEVB.name} | 2.00 |"


def test_a_run_under_way_shows_when_its_error_was_measured_and_enters_no_test(tmp_path):
    out = files.open_folder(tmp_path, create=True)
    for cell, errors in TEST_ERRORS.items():
        for seed, error in enumerate(errors):
            RunFiles(out, cell, seed).write_result(result(cell, seed, error))
    unfinished = result(GEVB, 0, 3.0, finished=None)
    unfinished.epochs += 1
    RunFiles(out, GEVB, 0).write_result(unfinished)
    assert main(["report", "--out", str(out)]) == 0
    row = row_of(out, "fully connected", "vectorized", "nonnegative", "GEVB")
    assert row[-2:] == ["3", "2, unfinished"]
    row = row_of(out, "MNIST", "fully connected", "nonnegative", "GEVB (vectorized)")
    assert row[-2] == "2"  # seeds 1 and 2
    assert "runs not finished: 1" in (out / "report.md").read_text()


@pytest.mark.parametrize(("finished", "shown"), [(None, [0, 1]), ("no training error", [0, 1, 2])])
def test_a_curve_ends_where_a_run_under_way_ends(finished, shown):
    runs = [result(GEVB, 0, 2.0), result(GEVB, 1, 2.0, epochs=1, finished=finished)]
    figure = figures.learning_curves(summarize(runs))
    lines = [line for ax in figure.axes for line in ax.get_lines() if len(line.get_xdata()) > 1]
    assert lines
    assert all(list(line.get_xdata()) == shown for line in lines)


def test_the_page_stands_alone_and_every_figure_is_there(folder):
    page = (folder / "report.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 7  # curves and alignment twice, width, maps, quality
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    linked = re.findall(r"\((figures/[^)]*)\)", (folder / "report.md").read_text())
    assert {link.rsplit(".")[-1] for link in linked} == {"png", "svg"}
    for link in linked:
        assert (folder / link).stat().st_size > 1000
    assert "http" not in re.sub(r'<a href="https?://[^"]*"', "", page.split("</style>")[1].split("data:")[0])


@pytest.mark.long
def test_the_same_results_give_the_same_page(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["report", "--out", str(folder)]) == 0
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_results_load_as_they_were_written(folder):
    results = load_results(folder)
    assert [(r.cell, r.seed) for r in results] == [
        (c, s) for c in CELLS.values() if c in TEST_ERRORS for s in range(len(TEST_ERRORS[c]))
    ]
    assert results[0].to_json() == json.loads(RunFiles(folder, GEVB, 0).result.read_text())


def test_a_run_under_way_is_reported_as_unfinished(tmp_path):
    out = files.open_folder(tmp_path, create=True)
    RunFiles(out, GEVB, 0).write_result(result(GEVB, 0, 1.0, epochs=1, finished=None))
    assert main(["report", "--out", str(out)]) == 0
    assert row_of(out, "fully connected", "vectorized", "nonnegative", "GEVB")[-1] == "1, unfinished"


def test_an_empty_folder_has_no_report(tmp_path, capsys):
    files.open_folder(tmp_path, create=True)
    assert main(["report", "--out", str(tmp_path)]) == 1
    assert "no results" in capsys.readouterr().err


# What is computed once


def test_alignment_falls_with_width_and_what_is_measured_is_kept(tmp_path):
    told = []
    arguments = {"seeds": (0,), "dataset": "digits", "progress": lambda *done: told.append(done)}
    measure_width(tmp_path, widths=(16, 256), **arguments)
    rows = measure_width(tmp_path, widths=(16, 64, 256), **arguments)
    assert told == [(i, 4) for i in range(1, 5)] + [(1, 2), (2, 2)]
    angles = {(row["weights"], row["width"]): row["alignment_degrees"] for row in rows}
    for layer in (0, 1):
        narrow, middle, wide = (angles["nonnegative", width][layer] for width in (16, 64, 256))
        assert narrow > middle > wide
    # A 16-fold width divides the spread of a mean by 4.
    np.testing.assert_allclose(angles["nonnegative", 256][0], angles["nonnegative", 16][0] / 4, rtol=0.5)
    np.testing.assert_allclose(angles["mixed", 256], 90, atol=12)  # 1 / sqrt(256) = 3.6 degrees, times 3


def test_alignment_before_training_is_that_of_a_run(tmp_path):
    rows = measure_alignment(tmp_path, find(["digits-fc-*"], paper=True), seeds=(0,))
    assert [row["cell"].split("-")[3] for row in rows] == ["gevb", "gevb", "dfa", "dfa"]
    run = run_cell(CELLS[rows[-1]["cell"]], 0, tmp_path, Protocol(1, 1))
    assert run.measurements[0]["alignment_degrees"] == rows[-1]["alignment_degrees"]


def test_cluster_quality_is_within_over_overall_distance():
    """From all pairs, written out, with as many samples in each class."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 4)
    points = rng.standard_normal((12, 5)) + 3 * labels[:, None]
    quality = representation.ClusterQuality(3)
    for part in (slice(0, 5), slice(5, 12)):
        quality.update(points[part], labels[part])
    squares = ((points[:, None] - points) ** 2).sum(axis=-1)
    same = labels[:, None] == labels
    # The sum over all pairs of n points is 2 n times that around their mean.
    within, overall = squares[same].sum() / (2 * 4), squares.sum() / (2 * 12)
    np.testing.assert_allclose(quality.result(), np.sqrt(within / overall), rtol=1e-10)


@pytest.mark.parametrize(("spread", "quality"), [(0.0, 0.0), (1e6, 1.0)])
def test_cluster_quality_goes_from_points_to_no_clusters(spread, quality):
    rng = np.random.default_rng(0)
    labels = np.arange(4000) % 2
    measured = representation.ClusterQuality(2)
    measured.update(labels[:, None] + spread * rng.standard_normal((4000, 1)), labels)
    np.testing.assert_allclose(measured.result(), quality, atol=1e-3)  # 1 / samples


def test_alignment_of_a_network_without_a_signal_is_left_out(tmp_path):
    files.open_folder(tmp_path, create=True)
    row = {"dataset": "mnist", "width": 8, "weights": "mixed", "seed": 0}
    rows = [{**row, "alignment_degrees": angles} for angles in ([None, 1.0], [2.0, 1.0])]
    files.write_json(tmp_path / "width.json", {"schema": files.SCHEMA, "rows": rows})
    assert [row["alignment_degrees"] for row in read_width(tmp_path)] == [[2.0, 1.0]]
    seeds = [result(GEVB, seed, 1.0) for seed in (0, 1)]
    seeds[0].measurements[0]["alignment_degrees"] = [None, 20.0]
    assert initial_alignment(seeds, []) == {GEVB: [[10.0, 20.0]]}


def test_published_angles_stand_at_the_ends_that_they_are_of():
    ax = panel(figures.alignment_in_training(summarize([result(GEVB, 0, 4.0)])), "GEVB", "nonnegative")
    shown = {(text.xy[0] > 0, text.get_text(), text.xy[1]) for text in ax.texts}
    ends = enumerate((GEVB.published_alignment["init"], GEVB.published_alignment["last"]))
    assert shown == {
        (bool(last), str(n), angle) for last, angles in ends for n, angle in enumerate(angles, 1)
    }


def test_hours_are_the_seconds_of_all_epochs(folder):
    seconds = 4.0 * sum(map(len, TEST_ERRORS.values()))
    assert f"Training took {seconds / 3600:.2f} hours" in (folder / "report.md").read_text()


def test_cells_of_different_epochs_stand_in_lists_of_their_own():
    runs = [result(GEVB, 0, 3.0), result(GEVB, 1, 3.0), result(BACKPROP, 0, 2.0)]
    runs[0] = dataclasses.replace(runs[0], protocol=Protocol(1, 1))
    assert "<" not in tables.order(summarize(runs))
