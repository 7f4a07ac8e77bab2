"""The paper's comparison: 48 networks trained by broadcast errors and by backpropagation.

python -m keras_gevb.experiments list [CELL ...]
python -m keras_gevb.experiments run CELL ... --out DIR
python -m keras_gevb.experiments alignment CELL ... --out DIR
python -m keras_gevb.experiments width
python -m keras_gevb.experiments report
"""

from keras_gevb.experiments.cells import CELLS, Cell, find
from keras_gevb.experiments.files import ExperimentError
from keras_gevb.experiments.initial import measure_alignment, measure_width
from keras_gevb.experiments.report import write_report
from keras_gevb.experiments.results import Protocol, Result, load_results
from keras_gevb.experiments.run import run_cell

__all__ = [
    "CELLS",
    "Cell",
    "ExperimentError",
    "Protocol",
    "Result",
    "find",
    "load_results",
    "measure_alignment",
    "measure_width",
    "run_cell",
    "write_report",
]
