"""``python -m tlpipe``: the same as the command ``tlpipe``."""

from tlpipe.cli import main

main()
