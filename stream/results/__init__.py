"""From sums over users to conclusions: differences with intervals, and whether an experiment can be trusted.

Pure functions of an experiment's rules and what was counted (sums, cohorts, troubles, as_of) to frozen rows. The
worker, the commands and the demo call the same ones.
"""
