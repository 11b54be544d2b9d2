"""Why a figure is absent. Absent figures are None, never 0, infinity or NaN."""

from enum import StrEnum


class NoInterval(StrEnum):
    """Why a comparison has no interval. A member's value is its name in JSON and in tables."""

    TOO_FEW_USERS = "too_few_users"  # fewer than two in one of the arms
    NO_DENOMINATOR = "no_denominator"  # the y of a ratio add up to 0 in one of the arms
    NO_VARIANCE = "no_variance"  # all users are alike in both arms, as when nobody has clicked yet
    CONTROL_IS_ZERO = "control_is_zero"  # the difference has its interval; a lift over nothing has no value
    RATES_ONLY = "rates_only"  # the experiment's policy counts a user in two arms
    NO_CONTROL = "no_control"  # there is no arm to compare with
    NO_COMMON_PHASE = "no_common_phase"  # the two arms had users only in different phases of the plan
    SLICE_TOO_SMALL = "slice_too_small"  # too few users in one of the arms of a slice


class NoSampleRatio(StrEnum):
    """Why there is no test of the sample ratio."""

    SHARES_NOT_DECLARED = "shares_not_declared"
    ONE_ARM = "one_arm"
    NO_USERS = "no_users"
    RATES_ONLY = "rates_only"  # the experiment's policy counts a user in two arms
