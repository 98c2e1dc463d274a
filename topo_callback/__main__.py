"""`python -m topo_callback`: the same as the command `topo-callback`."""

from topo_callback.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
