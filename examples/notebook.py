"""A Jupyter notebook whose kernel runs on our loop: `notebook.ipynb`, cell by cell.

A kernel is put on the loop by its start command: install first, then launch. With such a
`kernel.json` in a folder of kernels, Jupyter offers it beside its own. This program writes one
into a temporary folder, runs the notebook with it and prints what the cells printed.

Needs: ipykernel, nbclient, nest_asyncio
"""

import json
import os
import pathlib
import sys
import tempfile

import nbclient
import nbformat
from traitlets.config import Config

import uvloop_clone

NOTEBOOK = pathlib.Path(__file__).resolve().with_suffix(".ipynb")
LAUNCH = (
    "import uvloop_clone; uvloop_clone.install(); "
    "from ipykernel import kernelapp; kernelapp.launch_new_instance()"
)


def add_kernel(folder: pathlib.Path) -> None:
    """Write the kernel's description below `folder`, and point Jupyter there."""
    kernel = folder / "kernels" / "uvloop_clone"
    kernel.mkdir(parents=True)
    description = {
        "argv": [sys.executable, "-c", LAUNCH, "-f", "{connection_file}"],
        "display_name": "Python on uvloop_clone",
        "language": "python",
        "env": {"PYDEVD_DISABLE_FILE_VALIDATION": "1"},
    }
    (kernel / "kernel.json").write_text(json.dumps(description))
    os.environ["JUPYTER_PATH"] = str(folder)
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        os.environ[variable] = str(folder / variable.lower())


async def main(folder: pathlib.Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # Unix sockets in our own folder: no open ports, nobody else can listen.
    config = Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "socket")}})
    where = {"metadata": {"path": str(folder)}}  # the kernel's working directory
    client = nbclient.NotebookClient(notebook, timeout=20, resources=where, config=config)
    await client.async_execute()
    for cell in notebook.cells:
        # What a cell prints may arrive in several pieces, cut anywhere.
        print("".join(output.get("text", "") for output in cell.get("outputs", ())), end="")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        add_kernel(pathlib.Path(scratch))
        uvloop_clone.run(main(pathlib.Path(scratch)))
