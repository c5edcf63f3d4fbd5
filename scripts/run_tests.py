#!/usr/bin/env python3
"""Set up all that the tests need, then run them.

    python3 scripts/run_tests.py [--setup-only] [--with EXTRA]... [PYTEST ARGUMENT]...

System packages that are missing are installed where that is allowed (root or sudo without a
password) and named where it is not. The package is built into .venv, a PostgreSQL of its own runs
for as long as the tests do. With arguments pytest runs once, with those; without, all tests run.
A second run skips what is done.
"""

import argparse
import os
import subprocess
import sys

import environment
import postgresql

# Most tests wait more than they work. The conformance tests have workers of their own.
WHOLE = [
    ("the conformance tests", ["tests/conformance"]),
    (
        "the project's tests",
        ["--ignore", "tests/conformance", "-n", str(2 * (os.cpu_count() or 1) + 1)],
    ),
]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setup-only", action="store_true", help="prepare .venv, run no test")
    parser.add_argument(
        "--with",
        action="append",
        default=[],
        metavar="EXTRA",
        help="install this extra of the package too (dev, cffi)",
    )
    options, arguments = parser.parse_known_args()
    environment.install_system_packages(environment.BUILD_NEEDS)
    environment.install_system_packages(environment.SERVICE_NEEDS, optional=True)
    python = environment.virtual_environment(*getattr(options, "with"))
    if options.setup_only:
        return 0
    with postgresql.private_server() as variables:
        status = 0
        for title, chosen in [("the tests", arguments)] if arguments else WHOLE:
            environment.say(f"running {title}")
            command = [python, "-m", "pytest", *chosen]
            done = subprocess.run(command, cwd=environment.ROOT, env={**os.environ, **variables})
            status = status or done.returncode
        return status


if __name__ == "__main__":
    sys.exit(main())
