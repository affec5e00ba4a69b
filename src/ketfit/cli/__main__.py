"""``python -m ketfit.cli`` is the command ``ketfit``."""

from ketfit.cli import main

main()
