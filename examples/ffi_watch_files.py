"""Watching a folder: libuv's `uv_fs_event`, which asyncio has nothing like, as an async iterator.

Needs: cffi, uvloop_clone._ffi
"""

import asyncio
import pathlib
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import uvloop_clone
from uvloop_clone.ffi import Handle, check, ffi, lib


async def changes(folder: pathlib.Path) -> AsyncIterator[str]:
    """The names in `folder` to which something happens, as it happens."""
    found: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    def on_event(_handle: Any, name: Any, _events: int, status: int) -> None:
        found.put_nowait((status, "" if name == ffi.NULL else ffi.string(name).decode()))

    loop = asyncio.get_running_loop()
    assert isinstance(loop, uvloop_clone.Loop)
    with Handle(loop, lib.uv_fs_event_init) as watcher:
        watcher.call(lib.uv_fs_event_start, on_event, str(folder).encode(), 0)
        while True:
            status, name = await found.get()
            check(status)
            yield name


async def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        watched = changes(folder)

        async def wait_for(wanted: str) -> None:
            async for found in watched:  # libuv may tell of one change more than once
                if found == wanted:
                    return

        for file in ("apple.txt", "pear.txt"):
            asyncio.get_running_loop().call_later(0.02, (folder / file).write_text, "ripe")
            await asyncio.wait_for(wait_for(file), 5)
            print("something happened to", file)
        asyncio.get_running_loop().call_later(0.02, (folder / "apple.txt").unlink)
        await asyncio.wait_for(wait_for("apple.txt"), 5)
        print("and to apple.txt again, which now exists:", (folder / "apple.txt").exists())
        await watched.aclose()  # type: ignore[attr-defined]

    try:
        await anext(changes(folder))
    except FileNotFoundError as error:
        print("libuv's errors are OSErrors:", type(error).__name__)


if __name__ == "__main__":
    uvloop_clone.run(main())
