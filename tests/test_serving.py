"""The requests that docs/compatibility.md documents, over HTTP, to a process without Keras."""

import json
import pathlib
import re
import urllib.error
import urllib.request

import keras
import numpy as np
import pytest
from test_export import hidden_units
from workflows import start_python

import keras_gevb
from keras_gevb import export  # noqa: F401  the documented code reads it of the package

ROOT = pathlib.Path(__file__).resolve().parents[1]
SECTION = (ROOT / "docs" / "compatibility.md").read_text().split("### A server")[1].split("\n## ")[0]
PATH, REQUEST = re.search(r"curl localhost:8501(\S+) -d '(.*)'", SECTION).groups()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The model of the documented code, and the address where it is served."""
    folder = tmp_path_factory.mktemp("serving")
    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        keras.utils.clear_session()  # the documented answer has the names of a first model's layers
        names = {"keras": keras, "keras_gevb": keras_gevb}
        exec(code, names)
    process = start_python(ROOT / "tests" / "processes" / "rest.py", "digits", folder / "served" / "digits")
    port = process.stdout.readline().strip()
    assert port, process.stderr.read()[-3000:]
    yield names["model"], f"http://127.0.0.1:{port}"
    process.kill()
    process.communicate()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), "uint8")


def send(url, body=None):
    """The status and the content of an answer."""
    data = None if body is None else body.encode()
    try:
        with urllib.request.urlopen(url, data, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def assert_same(answer, expected):
    # Float32, printed to all its digits; the two processes may sum in another order.
    np.testing.assert_allclose(np.array(answer, "float32"), expected, rtol=0, atol=1e-6)


def test_the_documented_request_is_answered_with_every_hidden_layer(model, pixels):
    model, address = model
    body = REQUEST.replace("[[[[0], ...]]]", json.dumps(pixels.tolist()))
    status, answer = send(address + PATH, body)
    assert status == 200
    assert list(answer) == ["outputs"]
    expected = hidden_units(model, pixels)
    assert (
        set(answer["outputs"])
        == set(expected)
        == set(re.findall(r'"(vector_dense\w*)": \[\.\.\.\]', SECTION))
    )
    for name, units in expected.items():
        assert_same(answer["outputs"][name], units)


def test_logits_are_answered_by_column_and_by_row(model, pixels):
    model, address = model
    logits = model.predict(pixels, verbose=0)
    status, by_column = send(address + PATH, json.dumps({"inputs": {"pixels": pixels.tolist()}}))
    assert status == 200
    assert_same(by_column["outputs"], logits)
    rows = [{"pixels": image} for image in pixels.tolist()]
    for instances in (rows, pixels.tolist()):
        status, by_row = send(address + PATH, json.dumps({"instances": instances}))
        assert status == 200
        assert_same(by_row["predictions"], logits)


def test_hidden_units_are_answered_by_row_too(model, pixels):
    model, address = model
    request = {"signature_name": "hidden_units", "instances": pixels.tolist()}
    _, answer = send(address + PATH, json.dumps(request))
    for name, units in hidden_units(model, pixels).items():
        assert_same([row[name] for row in answer["predictions"]], units)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/models/digits:predict", {"signature_name": "gone", "inputs": []}, 400),
        ("/v1/models/digits:predict", {"inputs": {"images": [[[[0]]]]}}, 400),
        ("/v1/models/digits:predict", {"inputs": {"pixels": [[[[0]]]]}}, 400),
        ("/v1/models/letters:predict", {"inputs": []}, 404),
    ],
)
def test_a_wrong_request_is_an_error_and_the_service_goes_on(model, path, body, status, pixels):
    _, address = model
    code, answer = send(address + path, json.dumps(body))
    assert (code, list(answer)) == (status, ["error"])
    code, state = send(f"{address}/v1/models/digits")
    assert (code, state["model_version_status"][0]["state"]) == (200, "AVAILABLE")
