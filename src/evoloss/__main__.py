"""`python -m evoloss` is the command line."""

from evoloss.cli import main

main()
