"""Real workers on a real broker and database while all of them are killed, stopped and restarted."""
