"""Hostile bytes, a million cases: each ends in values, rows or DecodeError, in bounded time and memory. See tests.fuzz.__main__."""
