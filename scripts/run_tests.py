#!/usr/bin/env python3
"""Set up all that the tests need, then run them.

    python3 scripts/run_tests.py [--setup-only] [--with EXTRA]... [PYTEST ARGUMENT]...

System packages that are missing are installed where that is allowed (root or sudo without a
password) and named where it is not. The package is built into .venv, a PostgreSQL of its own runs
for as long as the tests do, and pytest has the last word. A second run skips what is done.
"""

import argparse
import os
import subprocess
import sys

import environment
import postgresql


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
        environment.say("running the tests")
        command = [python, "-m", "pytest", *arguments]
        return subprocess.run(
            command, cwd=environment.ROOT, env={**os.environ, **variables}
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
