"""Every rule on the same networks, data, seeds and budget of tuning: `docs/results/rules.md`.

    python benchmarks/rules.py tune --out runs/rules        # six trials a rule, on held-out training images
    python benchmarks/rules.py run --out runs/rules         # the protocol with the best one, seed by seed
    python benchmarks/rules.py collect --out runs/rules     # all runs in one file, docs/results/rules.json
    python benchmarks/rules.py figures                      # from that file; `table` prints its means

A run is a file of its own, so a stopped command goes on with what is missing.
"""

import argparse
import itertools
import json
import pathlib
import time

import keras
import numpy as np

from keras_gevb import datasets, rules, zoo
from keras_gevb.diagnostics import alignment_angles
from keras_gevb.experiments import style
from keras_gevb.experiments.results import versions
from keras_gevb.experiments.run import data_order

SCHEMA = "keras_gevb.rules/1"
# Six trials: of learning rates, or of three of them and two settings of the rule where it has any (KP: four).
RATES = {1: (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2), 2: (3e-4, 1e-3, 3e-3)}
SETTINGS = {
    "kp": [{"decay": 1e-2}, {"decay": 3e-3}, {"decay": 3e-4}, {"decay": 1e-4}],
    "dkp": [{"rate": 0.1}, {"rate": 0.01}],
    "fdfa": [{"rate": 1e-2}, {"rate": 1e-3}],
    "ebd": [{"entropy": 0.0, "power": 0.0}, {"entropy": 1e-3, "power": 1e-2}],
    "node_perturbation": [{"samples": 1}, {"samples": 4}],
}
CONVENTIONAL = (
    *("backprop", "usf", "frsf", "brsf", "kp", "fa", "dkp", "fdfa", "dfa", "sdfa", "drtp"),
    *("local_error", "node_perturbation", "ebd"),
)
VECTORIZED = ("gevb", "dkp", "fdfa", "kp", "backprop")
HELD_OUT, BATCH = 0.2, 128


def network(dataset, architecture, units, weights, rule, settings, seed):
    made = rules.get(rule)
    if settings or "seed" in made.get_config():
        own = {"seed": seed} if "seed" in made.get_config() else {}
        made = type(made)(**{**made.get_config(), **own, **settings})
    keras.utils.set_random_seed(
        seed
    )  # after the rule's own draws, so that all rules start from the same weights
    return zoo.build(
        dataset, architecture, units == "vectorized", weights == "nonnegative", learning_rule=made
    )


def train(job, train_set, test_set, protocol):
    """The curve of one run: errors in percent, losses, and angles to backpropagation's signal."""
    model = network(
        **{key: job[key] for key in ("dataset", "architecture", "units", "weights", "rule")},
        settings=job["settings"],
        seed=job["seed"],
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(job["learning_rate"], epsilon=1e-8)
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=protocol["jit_compile"])
    (x, y), curve, start = train_set, [], time.perf_counter()
    for epoch in range(protocol["epochs"] + 1):
        if epoch:
            order = data_order(job["seed"], epoch - 1, len(x))
            model.fit(x[order], y[order], batch_size=BATCH, shuffle=False, verbose=0)
        last = epoch == protocol["epochs"]
        if epoch % protocol["every"] == 0 or last:
            point = {"epoch": epoch}
            for name, data in (("train", train_set), ("test", test_set)):
                logs = model.evaluate(*data, batch_size=BATCH, verbose=0, return_dict=True)
                point[f"{name}_error_percent"] = round(100 * (1 - logs["accuracy"]), 4)
                point[f"{name}_loss"] = float(logs["loss"]) if np.isfinite(logs["loss"]) else None
            done = last or point["train_error_percent"] == 0
            if protocol["angles"] and (epoch in protocol["angles"] or done):
                angles = alignment_angles(model, x[:128], y[:128]).values()
                point["alignment_degrees"] = [round(a, 2) if np.isfinite(a) else None for a in angles]
            curve.append(point)
            if done:
                break
    return {"curve": curve, "seconds": round(time.perf_counter() - start, 1)}


def jobs(options, tuned):
    """The runs, one dict each."""
    for architecture, weights, rule in itertools.product(
        options.architectures, options.weights, options.rules
    ):
        settings = tuned.get(f"{options.units}-{rule}", {"settings": {}, "learning_rate": 3e-4})
        for seed in range(options.seeds):
            yield {
                "dataset": options.dataset,
                "architecture": architecture,
                "units": options.units,
                "weights": weights,
                "rule": rule,
                "seed": seed,
                **settings,
            }


def name(job):
    parts = [job[key] for key in ("dataset", "architecture", "units", "rule", "weights")]
    return "-".join(map(str, [*parts, job["seed"]]))


def write(path, content, indent=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(content, indent=indent))
    beside.rename(path)


def tune(options):
    """The best of a rule's settings by error on held-out training images, one seed."""
    (x, y), _ = datasets.load(options.dataset, options.data_dir)
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = np.split(order, [int(HELD_OUT * len(x))])
    kept = kept[: options.images]
    like = best(options.out, options.like, options.units) if options.like else {}
    protocol = {"epochs": options.epochs, "every": options.epochs, "angles": (), "jit_compile": options.jit}
    path = options.out / f"tuned-{options.dataset}-{options.units}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for rule in options.rules:
        trials = found.setdefault(f"{options.units}-{rule}", [])
        own = SETTINGS.get(rule, [{}])
        if options.like:
            own = [like[f"{options.units}-{rule}"]["settings"]]
        rates = options.rates or RATES[1 if len(own) == 1 else 2]
        for settings, rate in itertools.product(own, rates):
            if any((t["settings"], t["learning_rate"]) == (settings, rate) for t in trials):
                continue
            job = {
                "dataset": options.dataset,
                "architecture": "fc",
                "units": options.units,
                "weights": options.weights[0],
                "rule": rule,
                "seed": 100,
                "settings": settings,
                "learning_rate": rate,
            }
            run = train(job, (x[kept], y[kept]), (x[held], y[held]), protocol)
            last = run["curve"][-1]
            trials.append(
                {
                    "settings": settings,
                    "learning_rate": rate,
                    **{k: last[k] for k in ("test_error_percent", "test_loss")},
                }
            )
            print(rule, settings, rate, last["test_error_percent"], run["seconds"], flush=True)
            write(path, found)
            keras.backend.clear_session()


def best(out, dataset, units):
    path = out / f"tuned-{dataset}-{units}.json"
    found = json.loads(path.read_text()) if path.exists() else {}

    def order(trial):
        loss = trial["test_loss"]
        return trial["test_error_percent"], float("inf") if loss is None else loss

    chosen = {rule: min(trials, key=order) for rule, trials in found.items() if trials}
    return {rule: {k: t[k] for k in ("settings", "learning_rate")} for rule, t in chosen.items()}


def run(options):
    train_set, test_set = datasets.load(options.dataset, options.data_dir)
    protocol = {
        "epochs": options.epochs,
        "every": options.every,
        "angles": options.angles,
        "jit_compile": options.jit,
    }
    for job in jobs(options, best(options.out, options.dataset, options.units)):
        path = options.out / "runs" / f"{name(job)}.json"
        if path.exists():
            continue
        measured = train(job, train_set, test_set, protocol)
        content = {"schema": SCHEMA, **job, "protocol": {k: protocol[k] for k in ("epochs", "every")}}
        write(path, {**content, "batch_size": BATCH, "versions": versions(), **measured})
        last = measured["curve"][-1]
        print(name(job), last["epoch"], last["test_error_percent"], measured["seconds"], flush=True)
        keras.backend.clear_session()


def collect(options):
    found = [json.loads(path.read_text()) for path in sorted((options.out / "runs").glob("*.json"))]
    tuned = {p.stem: json.loads(p.read_text()) for p in sorted(options.out.glob("tuned-*.json"))}
    write(options.file, {"schema": SCHEMA, "tuning": tuned, "runs": found}, indent=None)
    print(len(found), "runs in", options.file)


# What a unit is told of, beside its own activity: more to the right.
KNOWLEDGE = {
    "the target": ("drtp",),
    "a local classifier": ("local_error",),
    "e, fixed": ("dfa", "sdfa", "gevb"),
    "e, learned": ("dkp", "fdfa", "ebd"),
    "e . J u": ("node_perturbation",),
    "back, fixed": ("fa",),
    "back, signs": ("usf", "frsf", "brsf"),
    "back, learned": ("kp",),
    "the weights": ("backprop",),
}


def figures(options):
    """Errors against what a rule knows, and angles over training, of the data set's conventional networks."""
    content = json.loads(options.file.read_text())
    runs = [r for r in content["runs"] if r["dataset"] == options.dataset and r["units"] == "conventional"]
    architectures = [a for a in zoo.ARCHITECTURES if any(r["architecture"] == a for r in runs)]
    figure, axes = style.grid([""], architectures, size=(3.6, 4.2))
    for (_, architecture), ax in axes.items():
        for place, names in enumerate(KNOWLEDGE.values()):
            for rule in names:
                errors = [
                    r["curve"][-1]["test_error_percent"]
                    for r in runs
                    if (r["architecture"], r["rule"]) == (architecture, rule)
                ]
                look = {"color": style.COLOURS[rule], "marker": style.MARKERS[rule], "linestyle": ""}
                ax.plot([place] * len(errors), errors, **look)
        ax.set(title=style.name(architecture), yscale="log", ylabel="test error (%)")
        ax.set_xticks(range(len(KNOWLEDGE)), KNOWLEDGE, rotation=60, ha="right")
    _legend(figure, {r["rule"]: None for r in runs})
    figure.savefig(options.file.with_name(f"rules-{options.dataset}-knowledge.svg"))
    if not any(sum("alignment_degrees" in point for point in r["curve"]) > 1 for r in runs):
        return
    figure, axes = style.grid([""], architectures, size=(3.6, 3.0))
    for (_, architecture), ax in axes.items():
        for rule in dict.fromkeys(r["rule"] for r in runs if r["rule"] != "backprop"):
            some = [r for r in runs if (r["architecture"], r["rule"], r["seed"]) == (architecture, rule, 0)]
            for run in some:
                points = [p for p in run["curve"] if p.get("alignment_degrees")]
                angles = [[a for a in p["alignment_degrees"] if a is not None] for p in points]
                means = [np.mean(a) if a else np.nan for a in angles]
                look = {"color": style.COLOURS[rule], "marker": style.MARKERS[rule]}
                ax.plot([p["epoch"] for p in points], means, **look)
        ax.set(title=style.name(architecture), xlabel="epoch", ylabel="angle to g (degrees)", ylim=(-3, 105))
    _legend(figure, {r["rule"]: None for r in runs if r["rule"] != "backprop"})
    figure.savefig(options.file.with_name(f"rules-{options.dataset}-angles.svg"))


def _legend(figure, names):
    handles = [
        style.sample(style.name(n), color=style.COLOURS[n], marker=style.MARKERS[n], linestyle="")
        for n in names
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=round(figure.get_figwidth() / 1.5))


def table(options):
    """The errors as a table in Markdown, mean and standard deviation over seeds."""
    content = json.loads(options.file.read_text())
    groups = {}
    for r in content["runs"]:
        settings = ", ".join([*(f"{k} {v:g}" for k, v in r["settings"].items()), f"{r['learning_rate']:g}"])
        row = r["dataset"], r["units"], r["rule"], settings
        groups.setdefault(row, {}).setdefault(r["architecture"], []).append(r)
    lines = [
        "| data | units | rule | settings, learning rate | fc | conv | lc |",
        "|:--|:--|:--|:--|--:|--:|--:|",
    ]
    for (dataset, units, rule, settings), found in groups.items():
        cells = [_cell(found.get(a, [])) for a in zoo.ARCHITECTURES]
        lines.append(f"| {dataset} | {units} | {style.name(rule)} | {settings} | {' | '.join(cells)} |")
    print("\n".join(lines))


def _cell(runs):
    errors = [r["curve"][-1]["test_error_percent"] for r in runs]
    if not errors:
        return ""
    spread = f" ± {np.std(errors, ddof=1):.2f}" if len(errors) > 1 else ""
    return f"{np.mean(errors):.2f}{spread} ({len(errors)})"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["tune", "run", "collect", "figures", "table"])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/rules"))
    parser.add_argument("--file", type=pathlib.Path, default=pathlib.Path("docs/results/rules.json"))
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--units", choices=["conventional", "vectorized"], default="conventional")
    parser.add_argument("--architectures", nargs="+", default=list(zoo.ARCHITECTURES))
    parser.add_argument("--weights", nargs="+", default=["mixed"])
    parser.add_argument("--rules", nargs="+")
    parser.add_argument("--rates", nargs="+", type=float, help="the learning rates to try")
    parser.add_argument("--images", type=int, help="train on so many images in tuning")
    parser.add_argument("--like", help="rules' own settings as tuned on this data set; only rates are tried")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--angles", type=int, nargs="*", default=[0, 10, 50, 100])
    parser.add_argument("--jit", action="store_true", help="compile by XLA")
    options = parser.parse_args()
    options.rules = options.rules or {"conventional": CONVENTIONAL, "vectorized": VECTORIZED}[options.units]
    options.epochs = options.epochs or {"tune": 30, "run": 190}.get(options.command)
    commands = {"tune": tune, "run": run, "collect": collect, "figures": figures, "table": table}
    commands[options.command](options)


if __name__ == "__main__":
    main()
