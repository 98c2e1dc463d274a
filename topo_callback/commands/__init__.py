"""The subcommands of `topo-callback`, one file each: a parser, and a function that calls the library.

`cli.py` puts them together. A file here imports nothing heavy before its function runs, so that `--help` is instant;
what arguments have in common is in `arguments`.
"""
