"""Kill a run of experiments at random moments, start it again each time, and compare what it leaves.

    python benchmarks/survival.py --kills 20

An undisturbed run comes first. Then the same command is started and killed (kill -9), again and
again, into one folder until it completes, then into the next, until it was killed as often as asked.
Every result file must equal the undisturbed one, byte for byte.
"""

import argparse
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile


def main(arguments=None):
    """Returns the exit status: 1 if a result differs."""
    options = _options(arguments)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = pathlib.Path(folder, "alone"), pathlib.Path(folder, "killed")
        start(options, alone).wait()
        expected = results(alone)
        kills = completed = 0
        while kills < options.kills or killed.exists():
            # Past the last kill the command is left to complete.
            moment = rng.uniform(*options.seconds) if kills < options.kills else None
            process = start(options, killed)
            try:
                status = process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                print(f"kill {kills} after {moment:.1f} s", flush=True)
                continue
            if status != 0 or results(killed) != expected:
                print(f"A run that was killed does not end as one left alone (exit status {status}).")
                return 1
            completed += 1
            shutil.rmtree(killed)
    print(f"{kills} kills. Runs completed, each equal to the undisturbed one, byte for byte: {completed}.")
    return 0


def start(options, out):
    command = [sys.executable, "-m", "keras_gevb.experiments", "run", *options.cells, "--seeds", "1"]
    command += ["--epochs", str(options.epochs), "--evaluate-every", "2", "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def results(out):
    """The names of all files that are left, with the content of the results."""
    paths = [path for path in out.rglob("*") if path.is_file()]
    measured = ".timing.json"  # differs from run to run
    return {
        str(path.relative_to(out)): None if path.name.endswith(measured) else path.read_bytes()
        for path in paths
    }


def _options(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", nargs="*", default=["digits-fc-vectorized-*"], metavar="CELL")
    parser.add_argument("--kills", type=int, default=20, help="default %(default)s")
    parser.add_argument("--epochs", type=int, default=20, help="of each run; default %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        nargs=2,
        default=(1, 30),
        metavar=("FIRST", "LAST"),
        help="a kill comes at a moment between these; default 1 to 30",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
