"""`python -m krait` is the `krait` command."""

from krait.cli import main

main()
