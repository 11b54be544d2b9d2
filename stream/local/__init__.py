"""Embedded broker and database for one machine."""
