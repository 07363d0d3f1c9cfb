"""Recipes: a rule with its settings, compared with others and moved between frameworks.

`recipe` and `spelled` say what a recipe is and how the frameworks write it; `digits`, `training` and `equivalence`
decide whether two give the same path; `counterpart`, `carrying` and `conversion` find what a recipe and its states are
elsewhere; `transfer` does it to a saved training.
"""
