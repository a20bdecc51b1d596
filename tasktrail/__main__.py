"""``python -m tasktrail`` is the command line."""

from tasktrail.cli import main

main()
