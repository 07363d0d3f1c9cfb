"""The exact forms that frameworks give the rules, under the frameworks' own names and defaults.

Two people who both write "RMSprop" train with different formulas. Each module here holds one framework's, to be tested
against the framework itself.
"""
