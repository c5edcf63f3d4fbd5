"""Files with aiofiles: read and write several at once without holding up the loop.

Needs: aiofiles
"""

import asyncio
import pathlib
import tempfile

import aiofiles

import uvloop_clone

POEM = {"dawn.txt": "a grey sky\nturns pink\n", "noon.txt": "no shade\n", "dusk.txt": "owls\n" * 3}


async def write(path: pathlib.Path, text: str) -> None:
    async with aiofiles.open(path, "w") as file:
        await file.write(text)


async def shout(path: pathlib.Path) -> str:
    async with aiofiles.open(path) as file:
        lines = [line.strip().upper() async for line in file]
    async with aiofiles.open(path.with_suffix(".loud"), "w") as file:
        await file.writelines(f"{line}!\n" for line in lines)
    return f"{path.name}: {len(lines)} lines"


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder, name) for name in POEM]
        await asyncio.gather(*(write(path, POEM[path.name]) for path in paths))
        for line in await asyncio.gather(*(shout(path) for path in paths)):
            print(line)
        async with aiofiles.open(pathlib.Path(folder, "dawn.loud")) as file:
            print((await file.read()).rstrip())
        try:
            async with aiofiles.open(pathlib.Path(folder, "night.txt")) as file:
                await file.read()
        except FileNotFoundError:
            print("there is no night")


if __name__ == "__main__":
    uvloop_clone.run(main())
