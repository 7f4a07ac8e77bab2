"""One vector network under this package, stock Keras, JAX and PyTorch: time of a step, memory, lines of code.

    python benchmarks/peers.py
    python benchmarks/peers.py --python jax=/venvs/jax/bin/python torch=/venvs/torch/bin/python

MNIST's fully connected network (1024 and 512 units of 10 components, nonnegative past the first layer), Adam,
batches of 128, from the same weights on the same images. Each peer is a process of its own and stands in
peer_networks/ as a user would write it; they train in turns, so that a drifting machine hits all. That they
train the same network is shown by the mean loss of their first steps. A peer whose framework is missing is
left out, and said to be. Results and table go to peers.json and peers.md in --out.
"""

import argparse
import importlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import tokenize

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "peer_networks"
# name: (module in peer_networks, framework, what its `build` is told)
PEERS = {
    "keras_gevb, GEVB": ("gevb", "tensorflow", ("gevb",)),
    "keras_gevb, backpropagation": ("gevb", "tensorflow", ("backprop",)),
    "Keras, automatic differentiation": ("keras_autodiff", "tensorflow", ("auto",)),
    "Keras, automatic differentiation, XLA": ("keras_autodiff", "tensorflow", (True,)),
    "JAX, automatic differentiation": ("jax_autodiff", "jax", ()),
    "JAX, backpropagation by hand": ("jax_by_hand", "jax", ()),
    "PyTorch": ("torch_autodiff", "torch", (False,)),
    "PyTorch, torch.compile": ("torch_autodiff", "torch", (True,)),
}
REFERENCE = "keras_gevb, backpropagation"
BATCH, RATE, FIRST_STEPS = 128, 3e-4, 5


def weights(widths=(784, 1024, 512), components=10):
    """Kernel and gates of each layer, the same in every process."""
    generator = np.random.default_rng(0)
    inputs, first, second = widths
    kernels = (
        generator.normal(0, inputs**-0.5, (inputs, components, first)),
        abs(generator.normal(0, 8 / first, (first, second))),
        abs(generator.normal(0, 16 / second, (second, 1))),
    )
    gates = *(generator.choice((-1.0, 1.0), (components, units)) for units in (first, second)), None
    return [(k.astype("float32"), g if g is None else g.astype("float32")) for k, g in zip(kernels, gates)]


def images(steps):
    """Bright and dark pixels, and labels; a step takes the same time whatever they show."""
    generator = np.random.default_rng(1)
    return generator.integers(0, 256, (steps * BATCH, 784), "uint8"), generator.integers(0, 10, steps * BATCH)


# One process: it answers each line that it is sent by one line.


def serve(name, steps):
    module, framework, told = PEERS[name]
    framework = importlib.import_module(framework)
    version = framework.__version__
    sys.path.insert(0, str(FOLDER))
    build = importlib.import_module(module).build
    alone = _status("VmRSS")
    train = build(weights(), RATE, *told)
    x, y = images(FIRST_STEPS)
    start = time.perf_counter()
    loss = train(x, y, BATCH)
    answer = {"version": version, "first loss": loss, "first seconds": time.perf_counter() - start}
    x, y = images(steps)
    train(x, y, BATCH)  # a graph may be compiled when it is met again
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        train(x, y, BATCH)
        milliseconds = 1e3 * (time.perf_counter() - start) / steps
        peaks = {"framework": alone, "peak": _status("VmHWM")}
        print(json.dumps({"milliseconds": milliseconds, **peaks}), flush=True)


def _status(field):
    """Megabytes; none where there is no /proc."""
    try:
        text = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return None
    return round(int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024 / 1e6)


# The process that has them train in turns.


class Peer:
    """A peer's process, ready to train; `why_not` says why there is none."""

    def __init__(self, name, python, steps):
        self.name, self.why_not = name, None
        _, framework, _ = PEERS[name]
        find = f"import importlib.util; print(importlib.util.find_spec({framework!r}) is not None)"
        found = subprocess.run([python, "-c", find], stdout=subprocess.PIPE, text=True, check=True)
        if "True" not in found.stdout:
            self.why_not = f"{framework} is not installed in {python}"
            return
        command = [python, __file__, "--serve", name, "--steps", str(steps)]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu", **os.environ}
        self._process = subprocess.Popen(
            command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self.started = self._answer()

    def turn(self):
        self._process.stdin.write("train\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"error: {self.name} ended with {self._process.wait()}; what it said stands above"
            )
        return json.loads(line)

    def end(self):
        self._process.stdin.close()
        self._process.wait()


def measure(options):
    """Results by peer; of those that cannot run, why."""
    peers = []
    for name in options.peers:
        python = options.python.get(PEERS[name][1], sys.executable)
        peers.append(Peer(name, python, options.steps))
        print(f"{name}: {peers[-1].why_not or 'ready'}", flush=True)
    running = [peer for peer in peers if not peer.why_not]
    turns = {peer.name: [] for peer in running}
    loads = []
    for _ in range(options.rounds):
        for peer in running:
            loads.append(os.getloadavg()[0] if hasattr(os, "getloadavg") else None)
            turns[peer.name].append(peer.turn())
    results = {}
    for peer in running:
        peer.end()
        milliseconds = [turn["milliseconds"] for turn in turns[peer.name]]
        p10, median, p90 = np.quantile(milliseconds, (0.1, 0.5, 0.9)).round(1).tolist()
        last = turns[peer.name][-1]
        results[peer.name] = {
            **peer.started,
            "milliseconds": {
                "p10": p10,
                "median": median,
                "p90": p90,
                "fastest": round(min(milliseconds), 1),
            },
            "framework": last["framework"],
            "peak": last["peak"],
            "lines": lines_of_code(FOLDER / f"{PEERS[peer.name][0]}.py"),
        }
    import measuring  # here, since Keras comes with it, which a peer's Python need not have

    left_out = {peer.name: peer.why_not for peer in peers if peer.why_not}
    return {
        "machine": measuring.machine(),
        "rounds": options.rounds,
        "steps": options.steps,
        "load": loads,
        "peers": results,
        "left out": left_out,
    }


def lines_of_code(path):
    """Lines of a file that hold code: no comments, blank lines or strings that stand alone."""
    source = path.read_text()
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines, fresh = set(), True
    for token in tokens:
        alone = token.type == tokenize.STRING and fresh
        if token.type not in silent and not alone and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            fresh = token.type == tokenize.NEWLINE
    return len(lines)


def table(measured):
    """What was measured, as Markdown."""
    peers = measured["peers"]
    base = peers.get("keras_gevb, GEVB")
    heads = "ms per step", "of GEVB's", "fastest turn, ms", "peak, MB", "beyond the framework, MB"
    heads = "", *heads, "lines", f"loss of {FIRST_STEPS} steps"
    rows = [f"| {' | '.join(heads)} |", "| :-- |" + " --: |" * (len(heads) - 1)]
    for name, result in sorted(peers.items(), key=lambda item: item[1]["milliseconds"]["median"]):
        times = result["milliseconds"]
        share = f"{times['median'] / base['milliseconds']['median']:.2f}" if base else ""
        cells = [
            name,
            f"{times['median']} ({times['p10']} to {times['p90']})",
            share,
            times["fastest"],
            result["peak"],
            result["peak"] - result["framework"],
            result["lines"],
            f"{result['first loss']:.5f}",
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    rows += [f"\nLeft out: {name} ({why})." for name, why in measured["left out"].items()]
    return "\n".join(rows)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="PEER")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each; default %(default)s")
    parser.add_argument("--steps", type=int, default=30, help="of a turn; default %(default)s")
    parser.add_argument(
        "--python",
        nargs="+",
        default={},
        type=lambda text: text.split("=", 1),
        metavar="FRAMEWORK=PATH",
        help="the Python that has tensorflow, jax or torch; default: this one",
    )
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/peers"))
    parser.add_argument("--serve", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.python = dict(options.python)
    if options.serve:
        return serve(options.serve, options.steps)
    measured = measure(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "peers.json").write_text(json.dumps(measured, indent=1) + "\n")
    (options.out / "peers.md").write_text(table(measured) + "\n")
    print(table(measured))


if __name__ == "__main__":
    main()
