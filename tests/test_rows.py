"""Elementwise operations of an ONNX graph in loops over rows: the same numbers, to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx_graphs

from keras_gevb.export import rows
from keras_gevb.export.onnx import OPSET

SHAPE = (3, 2, 4)
GIVEN = {"a": SHAPE, "b": SHAPE, "column": (3, 1, 1), "row": SHAPE[1:], "one": ()}


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(rows, "LARGE", 1)
    monkeypatch.setattr(rows, "ROW", 1)


def graph(nodes, outputs):
    sums = [(*node, {"keepdims": 0}) if "Reduce" in node[0] else node for node in nodes]
    return onnx_graphs.graph(GIVEN, sums, outputs)


def loops(nodes):
    return [node for node in nodes if node.op_type == "Scan"]


def assert_same(graph, count):
    nodes = rows.in_rows(graph, OPSET)
    assert len(loops(nodes)) == count
    onnx_graphs.assert_same(graph, nodes)
    return nodes


def test_operations_that_hand_on_rows_are_one_loop():
    steps = [("Mul", "aa", "c"), ("Add", ("c", "row"), "d"), ("Sub", ("d", "one"), "e"), ("Div", "eb", "f")]
    (loop,) = assert_same(graph(steps, {"f": SHAPE, "c": SHAPE}), 1)
    assert (list(loop.input), list(loop.output)) == (["a", "b"], ["c", "f"])


def test_a_loop_stands_behind_all_that_it_reads():
    steps = [("Mul", "aa", "c"), ("Softmax", "b", "s"), ("Add", "cs", "d")]
    assert [node.op_type for node in assert_same(graph(steps, {"d": SHAPE}), 1)] == ["Softmax", "Scan"]


def test_a_sum_on_the_way_parts_what_is_before_it_from_what_is_behind():
    steps = [("Mul", "aa", "c"), ("ReduceSum", "c", "norm"), ("Div", ("c", "norm"), "d"), ("Sub", "bd", "e")]
    steps.insert(1, ("Neg", "c", "n"))
    before, total, behind = assert_same(graph(steps, {"e": SHAPE, "n": SHAPE}), 2)
    assert (before.op_type, total.op_type, behind.op_type) == ("Scan", "ReduceSum", "Scan")


def test_what_is_small_or_of_other_axes_is_left_as_it_is(monkeypatch):
    assert_same(graph([("Add", ("a", "column"), "c"), ("Neg", "c", "d")], {"d": SHAPE}), 0)
    steps = [("Exp", ("row",), "r"), ("Neg", ("r",), "s"), ("Add", ("a", "s"), "c"), ("Neg", "c", "d")]
    nodes = assert_same(graph(steps, {"d": SHAPE}), 2)
    monkeypatch.setattr(rows, "LARGE", 24)  # of which the row has 8
    monkeypatch.setattr(rows, "ROW", 8)
    nodes = assert_same(graph(steps, {"d": SHAPE}), 1)
    assert [node.op_type for node in nodes] == ["Exp", "Neg", "Scan"]
    for name, least in (("LARGE", 25), ("ROW", 9)):
        with monkeypatch.context() as patch:
            patch.setattr(rows, name, least)
            assert_same(graph(steps, {"d": SHAPE}), 0)


KINDS = {"Mul": 2, "Add": 2, "Max": 2, "Sqrt": 1, "Abs": 1, "Identity": 1, "ReduceSum": 1}


@st.composite
def graphs(draw):
    """Graphs in which any operation reads what any before it made."""
    shapes, steps = dict(GIVEN), []
    for place in range(draw(st.integers(2, 14))):
        kind = draw(st.sampled_from([*KINDS]))
        read = [draw(st.sampled_from([*shapes])) for _ in range(KINDS[kind])]
        name = f"t{place}"
        shapes[name] = () if kind == "ReduceSum" else np.broadcast_shapes(*(shapes[n] for n in read))
        steps.append((kind, read, name))
    made = [name for _, _, name in steps]
    kept = draw(st.sets(st.sampled_from(made), min_size=1)) | {made[-1]}
    return graph(steps, {name: shapes[name] for name in made if name in kept})


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_any_graph_computes_the_same(graph):
    onnx_graphs.assert_same(graph, rows.in_rows(graph, OPSET))
