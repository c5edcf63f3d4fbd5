"""Tests that fail because a feature of our loop is still to come: pattern -> feature.

They are run as strict expected failures, so the run turns red as soon as one of them passes and
its line can go. The table ends empty.
"""

from __future__ import annotations

PENDING: dict[str, str] = {}
