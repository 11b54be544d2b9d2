"""The child process of ClickHouseServer: `clickhouse local` from a shared library, with listeners."""

import ctypes
import sys

SERVE = (
    "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; "
    # A query that never ends keeps the process and its listeners alive.
    "SELECT sleepEachRow(1) FROM system.numbers SETTINGS max_block_size = 1 FORMAT Null"
)


def main() -> None:
    """Arguments: library, then options of `clickhouse local`."""
    library = ctypes.CDLL(sys.argv[1])
    query = library.query_stable_v2
    query.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    query.restype = ctypes.c_void_p
    words = ["clickhouse", "--multiquery", "--output-format=TabSeparated", *sys.argv[2:], f"--query={SERVE}"]
    query(len(words), (ctypes.c_char_p * len(words))(*(w.encode() for w in words)))


if __name__ == "__main__":
    main()
