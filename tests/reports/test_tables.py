"""What the tables say: who is named, which figures are rounded how, what is there once."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from resnet_edge.reports import figures, plots, sentences, tables
from resnet_edge.verification.report import Check
from tests.reports.sample import proportion, sample


def on_two_runners():
    """The sample's artifacts here and, with other times, in an emulator."""
    report = sample()
    emulated = [
        dataclasses.replace(
            each,
            runner="qemu:cortex-a72",
            latency=each.latency and dataclasses.replace(each.latency, emulated=True, median_ms=50.0),
        )
        for each in report.artifacts
    ]
    return dataclasses.replace(report, artifacts=(*report.artifacts, *emulated))


def column(table, title):
    (index,) = (index for index, each in enumerate(table.columns) if each.title == title)
    return [row[index] for row in table.rows]


def test_a_runner_is_named_where_there_are_several():
    assert "runner" not in [each.title for each in tables.summary(sample()).columns]
    assert {cell.text for cell in column(tables.summary(on_two_runners()), "runner")} == {
        "-",
        "local",
        "qemu:cortex-a72",
    }
    assert tables.place(sample(), "a.onnx", "local") == "a.onnx"
    assert tables.place(on_two_runners(), "a.onnx", "local") == "a.onnx on local"
    assert tables.place(sample(), "", "ssh://pi") == "ssh://pi"


def test_a_changed_file_fails_in_its_row_on_every_runner():
    report = on_two_runners()
    name = report.artifacts[0].path
    changed = Check(name="files", artifact=name, runner="", verdict="fail", sentence="It was changed.")
    summary = tables.summary(dataclasses.replace(report, checks=(*report.checks, changed)))
    verdicts = {
        (row[0].text, row[1].text): cell.text
        for row, cell in zip(summary.rows, column(summary, "verdict"), strict=True)
    }
    assert verdicts[name, "local"] == verdicts[name, "qemu:cortex-a72"] == "fail"


def test_an_emulators_times_are_marked_and_not_plotted():
    cells = column(tables.summary(on_two_runners()), "latency")
    assert [cell.detail for cell in cells if cell.text == "50.0 ms"] == ["emulated"] * 5
    plot = plots.trade_off(on_two_runners(), "latency")
    assert plot is not None
    assert "qemu" not in plot.description


def test_columns_without_figures_are_left_out():
    bare = dataclasses.replace(
        sample(),
        artifacts=tuple(
            dataclasses.replace(each, accuracy=None, latency=None) for each in sample().artifacts
        ),
    )
    titles = [each.title for each in tables.summary(bare).columns]
    assert titles == ["artifact", "verdict", "size", "SQNR", "agreement (n=2,000)"]


def test_n_is_in_the_cell_where_it_differs():
    first, *others = sample().artifacts
    assert first.parity
    parity = dataclasses.replace(first.parity, top1_agreement=proportion(63, 64))
    report = dataclasses.replace(sample(), artifacts=(dataclasses.replace(first, parity=parity), *others))
    details = [cell.detail for cell in column(tables.summary(report), "agreement") if cell.detail]
    assert details[0].endswith(", n 64")
    assert all(detail.endswith(", n 2,000") for detail in details[1:])


def test_values_that_are_not_finite_stand_out():
    first, *others = sample().artifacts
    assert first.parity
    broken = dataclasses.replace(first, parity=dataclasses.replace(first.parity, non_finite=12))
    cell = column(tables.summary(dataclasses.replace(sample(), artifacts=(broken, *others))), "SQNR")[1]
    assert (cell.detail, cell.verdict) == ("12 not finite", "fail")


def test_steps_that_artifacts_share_are_there_once():
    found = [(step.name, len(whose)) for step, whose in tables.distinct_steps(sample())]
    assert found == [
        ("folded graph", 5),
        ("LiteRT (XNNPACK)", 1),
        ("LiteRT (XNNPACK)", 1),
        ("ONNX Runtime", 1),
        ("int8 integer reference", 2),
        ("LiteRT (XNNPACK)", 1),
        ("ONNX Runtime", 1),
    ]


def test_the_worst_layers_begin_with_kernel_bugs():
    found = sample().artifacts[2].layers
    assert found
    worst = tables.worst_layers(found)
    assert len(worst) == tables.WORST
    assert worst[0].verdict == "kernel bug"
    alone = [layer.alone_db for layer in worst[1:]]
    assert alone == sorted(alone, key=lambda ratio: ratio or 0.0)


def test_a_layer_that_differs_in_the_file_is_guilty_too():
    found = sample().artifacts[4].layers
    assert found
    *others, last = found.layers
    wrong = dataclasses.replace(found, layers=(*others, dataclasses.replace(last, verdict="differs in file")))
    assert tables.worst_layers(wrong)[0].node == last.node
    assert column(tables.layers(wrong), "verdict")[0].verdict == "fail"
    assert "differs in file" in plots.layers("a.onnx", wrong).svg


def test_the_plot_of_layers_has_room_for_all_of_them(monkeypatch):
    found = sample().artifacts[4].layers
    assert found
    first, *others = found.layers
    high = dataclasses.replace(
        found, layers=(dataclasses.replace(first, as_run_db=None, alone_db=140.0), *others)
    )
    low = dataclasses.replace(found, layers=(dataclasses.replace(first, alone_db=-3.0), *others))
    no_signal = dataclasses.replace(found, layers=(dataclasses.replace(first, as_run_db=-3076.5), *others))
    equal = dataclasses.replace(
        found,
        layers=tuple(dataclasses.replace(each, as_run_db=None, alone_db=None) for each in found.layers),
    )
    axes = Figure().add_subplot()
    monkeypatch.setattr(plots, "draw", lambda title, description, height, paint: paint(axes))
    expected = ((high, 0.0, 150.0), (low, -3.2, 50.0), (no_signal, -43.2, 50.0), (equal, 0.0, 1.0))
    for layers, bottom, top in expected:
        plots.layers("a.onnx", layers)
        assert axes.get_xlim() == (0.5, 14.5)
        assert axes.get_ylim()[0] == pytest.approx(bottom, abs=0.1)
        assert axes.get_ylim()[1] >= top


def test_a_ratio_of_power_is_told_only_where_there_is_power():
    assert [figures.decibels(ratio) for ratio in (31.24, -3.0, None, -3076.5)] == [
        "31.2 dB",
        "-3.0 dB",
        "equal",
        "no signal",
    ]


def test_a_waterfall_of_noise_alone_can_be_drawn(monkeypatch):
    first = sample().artifacts[0]
    steps = tuple(dataclasses.replace(each, sqnr_db=-7.0) for each in first.waterfall)
    axes = Figure().add_subplot()
    monkeypatch.setattr(plots, "draw", lambda title, description, height, paint: paint(axes))
    plots.waterfall(dataclasses.replace(sample(), artifacts=(dataclasses.replace(first, waterfall=steps),)))
    left, right = axes.get_xlim()
    assert left == 0 < right


def test_a_class_that_lost_nothing_is_not_the_worst():
    accuracy = sample().artifacts[4].accuracy
    assert accuracy
    assert sentences.worst_class(accuracy).startswith("Worst class: [bold]shirt")
    kept = dataclasses.replace(accuracy.worst_class, accuracy=accuracy.worst_class.reference_accuracy)
    assert sentences.worst_class(dataclasses.replace(accuracy, worst_class=kept)) == "No class lost."


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "skipped"),
        (["skipped"], "skipped"),
        (["pass", "skipped"], "pass"),
        (["pass", "inconclusive"], "inconclusive"),
        (["inconclusive", "fail", "pass"], "fail"),
        (["fail", "missing", "unreachable"], "unreachable"),
    ],
)
def test_the_most_urgent_verdict_decides(verdicts, expected):
    check = sample().checks[0]
    assert tables.verdict_of(dataclasses.replace(check, verdict=each) for each in verdicts) == expected


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0%"), (1, "<0.1%"), (5_000, "50.0%"), (9_996, ">99.9%"), (9_999, ">99.9%"), (10_000, "100.0%")],
)
def test_a_share_is_not_rounded_to_all_or_nothing(count, text):
    assert figures.percent(count / 10_000) == text


@pytest.mark.parametrize(
    ("verdicts", "text"),
    [
        ([], "nothing was checked"),
        (["pass"], "1 check passed"),
        (["pass", "pass"], "all 2 checks passed"),
        (["pass", "skipped"], "1 of 2 checks skipped, 1 passed"),
        (["fail"], "1 of 1 check failed"),
        (
            ["pass", "unreachable", "fail"],
            "1 of 3 checks without an answer from the runner, 1 failed, 1 passed",
        ),
    ],
)
def test_the_tally(verdicts, text):
    check = sample().checks[0]
    checks = tuple(dataclasses.replace(check, verdict=each) for each in verdicts)
    assert sentences.tally(dataclasses.replace(sample(), checks=checks)) == text


@given(st.text(st.characters()))
def test_names_become_one_printable_line(name):
    text = figures.plain(name)
    assert text.isprintable()
    assert text.encode().decode() == text  # no lone surrogates
    assert figures.plain(text) == text
