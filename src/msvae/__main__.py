"""`python -m msvae`: the command line where its script is not on the path."""

from msvae.cli.main import main

main()
