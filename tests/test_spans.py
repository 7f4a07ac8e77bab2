"""Broadcasts of an ONNX graph over longer spans: the same numbers, to the last bit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import numpy_helper
from onnx_graphs import assert_same, graph

from keras_gevb.export import spans
from keras_gevb.export.onnx import OPSET

GIVEN = {"x": (6, 4, 1), "e": (6, 1, 2), "every": (1, 4, 2), "pair": (2,), "one": (), "whole": (6, 4, 2)}
OUTER = {"p": (6, 4, 2), "m": (6, 8), "t": (8, 6)}


def spanned(graph):
    """The operations in longer spans: kinds, and the shapes of what each reads."""
    found = spans.in_spans(graph, OPSET)
    assert_same(graph, found.node)
    shapes = {name: shape for name, (_, shape) in spans.tensors_of(found, OPSET).items()}
    work = [node for node in found.node if node.op_type not in ("Constant", "Reshape")]
    return [(node.op_type, *(shapes[name] for name in node.input)) for node in work]


def outer(read=("x", "e"), kind="Mul", kept=("t",), flat=(6, 8), perm=(1, 0), given=GIVEN):
    """A product, its last axes merged, and the two axes that are left swapped."""
    shape = np.broadcast_shapes(*(given[name] for name in read))
    shapes = {"p": shape, "m": flat, "t": tuple(flat[axis] for axis in perm)}
    nodes = [
        (kind, read, "p"),
        ("Constant", (), "flat", {"value": numpy_helper.from_array(np.array(flat))}),
        ("Reshape", ("p", "flat"), "m"),
        ("Transpose", ("m",), "t", {"perm": perm}),
    ]
    return graph(given, nodes, {name: shapes[name] for name in kept})


def test_a_number_has_the_axes_of_what_ends_in_one():
    column = graph(GIVEN, [("Add", ("x", "one"), "c"), ("Sub", ("one", "c"), "d")], {"d": GIVEN["x"]})
    assert spanned(column) == [("Add", (6, 4, 1), (1, 1, 1)), ("Sub", (1, 1, 1), (6, 4, 1))]


@pytest.mark.parametrize("read", [("whole", "one"), ("x", "pair"), ("x", "x"), ("pair", "one")])
def test_other_broadcasts_are_left_as_they_are(read):
    shapes = [GIVEN[name] for name in read]
    assert spanned(graph(GIVEN, [("Mul", read, "c")], {"c": np.broadcast_shapes(*shapes)})) == [
        ("Mul", *shapes)
    ]


@pytest.mark.parametrize("read", [("x", "e"), ("e", "x"), ("every", "x")])
def test_a_transposed_product_is_made_of_transposed_factors(read):
    turned = [GIVEN[name][1:] + GIVEN[name][:1] for name in read]
    *transposes, product = spanned(outer(read))
    assert product == ("Mul", *turned)
    assert [kind for kind, _ in transposes] == ["Transpose", "Transpose"]


@pytest.mark.parametrize(
    "changed",
    [
        {"kept": ("t", "p")},  # which something else reads
        {"kept": ("t", "m")},
        {"flat": (12, 4)},  # the axes behind the first are not merged
        {"perm": (0, 1)},
        {"read": ("whole", "e")},  # a factor as large as the product
        {"read": ("x", "pair")},
        {"kind": "MatMul"},
        {"given": {"x": (2, 4, 1), "e": (2, 1, 6)}, "flat": (2, 24)},  # a batch shorter than the last axis
    ],
    ids=str,
)
def test_any_other_is_left_as_it_is(changed):
    assert [kind for kind, *_ in spanned(outer(**changed))][-1] == "Transpose"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_product_computes_the_same(data):
    extents = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    given = {
        name: tuple(n if data.draw(st.booleans()) else 1 for n in extents[skip:])
        for name, skip in (("x", 0), ("e", data.draw(st.integers(0, len(extents)))))
    }
    shape = np.broadcast_shapes(*given.values())
    flat = (shape[0], math.prod(shape[1:]))
    perm = data.draw(st.sampled_from([(1, 0), (0, 1)]))
    spanned(outer(given=given, kind=data.draw(st.sampled_from(["Mul", "Sub", "Max"])), flat=flat, perm=perm))
