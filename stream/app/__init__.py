"""The worker: Faust reads the topics, the step loop counts, outlets write. Wiring, and what needs a running loop."""

from stream.app.run import run_worker

__all__ = ["run_worker"]
