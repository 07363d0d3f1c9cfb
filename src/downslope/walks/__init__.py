"""Rules seen walking: surfaces with one or two weights, and the paths that rules take on them."""

from downslope.walks import surfaces as surfaces
