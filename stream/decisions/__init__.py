"""From results to actions: guardrails that fire once, promotions that are proposed, and what is told to whom.

The rules are pure functions of results; what was decided stands in the checkpoint store before anything is done.
"""
