"""A SavedModel behind TensorFlow Serving's REST requests, in a process without Keras and keras_gevb.

Arguments: the name of the model, and the folder of its versions. Prints the port that it listens on.

    GET  /v1/models/NAME             is it there, and which versions
    POST /v1/models/NAME:predict     {"signature_name": ..., "inputs": {...}}    -> {"outputs": ...}
                                     {"signature_name": ..., "instances": [...]} -> {"predictions": [...]}

As there, what is one input or one output only stands without its name, and an error is {"error": ...}.
"""

import http.server
import json
import pathlib
import sys

sys.modules.update(dict.fromkeys(["keras", "keras_gevb", "tf_keras"]))

import tensorflow as tf  # noqa: E402


class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == f"/v1/models/{name}"
        status = {
            "version": version,
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        self.answer(200, {"model_version_status": [status]}) if known else self.unknown()

    def do_POST(self):
        if self.path not in (f"/v1/models/{name}:predict", f"/v1/models/{name}/versions/{version}:predict"):
            return self.unknown()
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        signature = request.get("signature_name", "serving_default")
        if signature not in served.signatures:
            return self.answer(
                400, {"error": f"Serving signature name: {signature!r} not found in signature def"}
            )
        try:
            self.answer(200, predict(served.signatures[signature], request))
        except (KeyError, TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            self.answer(400, {"error": str(error)})

    def unknown(self):
        self.answer(404, {"error": f"Malformed request: {self.command} {self.path}"})

    def answer(self, code, content):
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def predict(signature, request):
    _, inputs = signature.structured_input_signature
    by_column = "inputs" in request
    given = request["inputs"] if by_column else request["instances"]
    if by_column:
        columns = given if isinstance(given, dict) else {next(iter(inputs)): given}
    elif isinstance(given[0], dict):
        columns = {key: [row[key] for row in given] for key in inputs}
    else:
        columns = {next(iter(inputs)): given}
    tensors = {key: tf.constant(columns[key], inputs[key].dtype) for key in inputs}
    outputs = {key: value.numpy().tolist() for key, value in signature(**tensors).items()}
    if by_column:
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
    rows = [dict(zip(outputs, row)) for row in zip(*outputs.values())]
    return {"predictions": rows if len(outputs) > 1 else next(iter(outputs.values()))}


name, folder = sys.argv[1:]
version = max(path.name for path in pathlib.Path(folder).iterdir())
served = tf.saved_model.load(pathlib.Path(folder) / version)
server = http.server.HTTPServer(("127.0.0.1", 0), Service)
print(server.server_port, flush=True)
server.serve_forever()
