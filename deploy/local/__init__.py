"""All parts of a fleet on one machine, for trying and for tests."""
