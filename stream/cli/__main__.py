"""`python -m stream.cli` is `liftstream`."""

from stream.cli import main

main(prog_name="liftstream")
