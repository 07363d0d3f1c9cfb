"""downslope: an update rule is written once, as its formula; everything else is derived from it."""

import importlib
from typing import TYPE_CHECKING, Any

from downslope import rules
from downslope.language import factors, operations, parts, whole
from downslope.language.factors import *
from downslope.language.formula import columns, columns_by_columns, rows, rows_by_rows, scalar
from downslope.language.operations import *
from downslope.language.operations import FormulaError
from downslope.language.options import Options
from downslope.language.parts import *
from downslope.language.whole import *
from downslope.rule import Rule, read_rule, rule
from downslope.rules import *
from downslope.version import __version__ as __version__

if TYPE_CHECKING:
    from downslope.numpy.optimizer import Optimizer
    from downslope.recipes.conversion import convert
    from downslope.recipes.equivalence import equivalent
    from downslope.recipes.from_adamw import muon_from_adamw
    from downslope.recipes.recipe import Recipe
    from downslope.recipes.transfer import convert_file
    from downslope.splitting.models import split
    from downslope.testing import check_rule
    from downslope.training.checkpoint import CheckpointError
    from downslope.training.groups import NonFiniteGradientError
    from downslope.walks import surfaces
    from downslope.walks.paths import Walk
    from downslope.walks.surface import Surface, read_surface, surface
    from downslope.walks.walking import walk

_LATER = {
    "CheckpointError": "downslope.training.checkpoint",
    "NonFiniteGradientError": "downslope.training.groups",
    "Optimizer": "downslope.numpy.optimizer",
    "check_rule": "downslope.testing",
    "Recipe": "downslope.recipes.recipe",
    "convert": "downslope.recipes.conversion",
    "convert_file": "downslope.recipes.transfer",
    "equivalent": "downslope.recipes.equivalence",
    "muon_from_adamw": "downslope.recipes.from_adamw",
    "Surface": "downslope.walks.surface",
    "read_surface": "downslope.walks.surface",
    "split": "downslope.splitting.models",
    "surface": "downslope.walks.surface",
    "surfaces": "downslope.walks",
    "Walk": "downslope.walks.paths",
    "walk": "downslope.walks.walking",
}

__all__ = [
    "CheckpointError",
    "FormulaError",
    "NonFiniteGradientError",
    "Optimizer",
    "Options",
    "Recipe",
    "Rule",
    "Surface",
    "Walk",
    "check_rule",
    "columns",
    "columns_by_columns",
    "convert",
    "convert_file",
    "equivalent",
    "muon_from_adamw",
    "read_rule",
    "read_surface",
    "rows",
    "rows_by_rows",
    "rule",
    "scalar",
    "split",
    "surface",
    "surfaces",
    "walk",
]
__all__ += operations.__all__
__all__ += factors.__all__
__all__ += whole.__all__
__all__ += parts.__all__
__all__ += rules.__all__


def __getattr__(name: str) -> Any:
    """Load a part of downslope when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'downslope' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
