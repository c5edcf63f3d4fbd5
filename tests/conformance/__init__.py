"""CPython's own asyncio tests, run on our event loop."""
