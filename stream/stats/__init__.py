"""Statistics of experiments from sums per arm: small frozen values that add, exact until the last division.

Knows no broker, database, file or clock. docs/statistics.md has the formulas and where they come from.
"""
