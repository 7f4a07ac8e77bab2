"""Everything that `keras_gevb.tuning` uses of keras-tuner beyond its public names.

Read in keras-tuner 1.4.7 and 1.4.8; pyproject.toml keeps to these. A name that moves is an error that says
which, and `tests/test_tuning_private.py` fails with it.
"""

import functools
import importlib
from concurrent import futures

import grpc
import keras_tuner


def lookup(owner, name):
    """A private name of keras-tuner's: of a module, given as text, or of an object.

    Raises:
        ImportError: if this version of keras-tuner does not have it.
    """
    try:
        return getattr(importlib.import_module(owner) if isinstance(owner, str) else owner, name)
    except (ImportError, AttributeError):
        where = owner if isinstance(owner, str) else type(owner).__name__
        raise ImportError(
            "keras_gevb.tuning was written for keras-tuner 1.4.7 and 1.4.8: install one of these, or mend "
            f"keras_gevb/tuning/private.py. Received: keras-tuner {keras_tuner.__version__}, "
            f"in which {where}.{name} is no more"
        ) from None


# The chief's side of the conversation with its workers. Publicly `Tuner.search` alone starts one,
# which waits for ever for a worker that died.
OracleServicer = lookup("keras_tuner.src.distribute.oracle_chief", "OracleServicer")


def start_server(servicer, address):
    """Let a servicer answer at an address, one request at a time. Returns the server, started."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    service = lookup("keras_tuner.src.protos", "get_service_grpc")()
    lookup(service, "add_OracleServicer_to_server")(servicer, server)
    server.add_insecure_port(address)
    server.start()
    return server


def message_status(name):
    """A trial's status as a message has it. Publicly a Trial has it, but a servicer answers with messages."""
    return getattr(lookup(lookup("keras_tuner.src.protos", "get_proto")(), "TrialStatus"), name)


def record_values(oracle, trial):
    """Note that an oracle has given out the values of a trial. Publicly `end_trial` alone does."""
    lookup(oracle, "_record_values")(trial)


def continue_grid(oracle, trials):
    """Let a grid's oracle go on from its trials. Publicly its place in the grid is not saved."""
    compare = lookup(oracle, "_compare")
    ordered, following = lookup(oracle, "_ordered_ids"), lookup(oracle, "_populate_next")
    in_order = functools.cmp_to_key(lambda a, b: compare(a.hyperparameters.values, b.hyperparameters.values))
    for trial in sorted(trials, key=in_order):
        lookup(ordered, "insert")(trial.trial_id)
        following.append(trial.trial_id)
