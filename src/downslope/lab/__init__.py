"""Races between update rules on real networks and real data.

Example:
    >>> import downslope, downslope.lab
    >>> table = downslope.lab.load_problem("breast-cancer")
    >>> table.task
    'classification'
"""

from downslope.extras import require

require("downslope.lab", "lab", ["jax", "scipy", "sklearn", "polars", "plotly", "latex2mathml"])

from downslope.lab.engines.protocol import Run
from downslope.lab.problems.problem import PROBLEMS, Problem, load_problem, load_table
from downslope.lab.problems.tables import DataError
from downslope.lab.races.protocol import race
from downslope.lab.races.results import Race, RuleResult
from downslope.lab.report.page import write_report

__all__ = [
    "PROBLEMS",
    "DataError",
    "Problem",
    "Race",
    "RuleResult",
    "Run",
    "load_problem",
    "load_table",
    "race",
    "write_report",
]
