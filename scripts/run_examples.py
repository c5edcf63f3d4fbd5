#!/usr/bin/env python3
"""Set up all that the examples need, then run them on uvloop_clone's loop.

    python3 scripts/run_examples.py

Runs the scripts in examples/ and, where the guide lies beside the project (../shared/guide), the
guide's examples too. System packages that are missing are installed where that is allowed (root or
sudo without a password) and named where it is not. A second run skips the set-up that is done.
"""

import argparse
import os
import subprocess
import sys

import environment
import postgresql

OWN = environment.ROOT / "examples" / "run_all.py"
GUIDE = environment.ROOT.parent / "shared" / "guide" / "run_guide.py"


def main():
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    environment.install_system_packages(environment.BUILD_NEEDS)
    environment.install_system_packages(environment.SERVICE_NEEDS, optional=True)
    python = environment.virtual_environment()
    status = 0
    with postgresql.private_server() as variables:
        # The guide names PostgreSQL's usual port: another server that has it serves the guide.
        has_usual_port = variables.get("PGPORT") == str(postgresql.USUAL_PORT)
        for title, command, led in [
            ("the project's examples", [OWN, "-v"], variables),
            (
                "the guide's examples",
                [GUIDE, "--loop", "uvloop_clone"],
                variables if has_usual_port else {},
            ),
        ]:
            if command[0].exists():
                environment.say(title)
                done = subprocess.run([python, *command], env={**os.environ, **led})
                status = status or done.returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
