"""Limits of the contract, one place for the models, the vectorised checks and the docs."""

MAX_ID_BYTES = 256  # ids and names, in UTF-8 bytes
MAX_POSITION = 1_000_000
MAX_VALUE_MINOR = 10**12  # absolute
MAX_PRE_VALUE = 10**12  # absolute
MAX_LATENCY_MS = 1e9
MIN_AT_MS = 0  # 1970-01-01
MAX_AT_MS = 253_402_300_799_999  # 9999-12-31
FUTURE_MS = 5 * 60_000  # how far `at` may be ahead of the Kafka record time
EARLY_MS = 5 * 60_000  # how far an interaction may precede its impression
MAX_EXPERIMENTS = 1_000
MAX_ARMS = 20
MAX_PAYLOAD_BYTES = (
    512 << 10
)  # kept of a rejected record: a broker takes 1 MiB, dead letters with their headers too
MAX_SLICE_VALUES = 1_000  # values kept per dimension and partition
MAX_PHASES = 16  # of an experiment's plan
MAX_METRICS = 4  # that an experiment declares
MAX_KINDS = 20  # of interactions that settings and experiments name
MAX_GUARDRAILS = 20  # of an experiment
