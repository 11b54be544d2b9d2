"""What each stage of a worker may cost per event, and what it does cost."""
