"""``python -m uvloop_clone``: run a script, module, code or REPL with our loop in force."""

from ._script import main

if __name__ == "__main__":
    main()
