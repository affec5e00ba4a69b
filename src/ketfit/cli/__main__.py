"""``python -m ketfit.cli`` is the command ``ketfit``."""

from ketfit.cli.main import main

main()
