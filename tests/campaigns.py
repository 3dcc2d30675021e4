"""Runs campaigns, each in a process of its own: `figures_of`. What a campaign is made of, and what it found, is its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class CampaignFailed(AssertionError):
    """A promise did not hold; the text is what the campaign said of it."""


def figures_of(*commands: str, is_shown: bool = False) -> list[dict[str, Any]]:
    """Run `python -m <command>` for each, all at once, and return the figures that they print as lines of JSON.

    Raises `CampaignFailed` if one of them found a fault. `is_shown` shows progress and faults, and lets the figures speak.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DSQL_"))}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", *command.split()],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=None if is_shown else subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    found: list[dict[str, Any]] = []
    failed = []
    try:
        for command, process in zip(commands, running, strict=True):
            said, progress = process.communicate()
            found += [json.loads(line) for line in said.splitlines()]
            if process.returncode != 0 and not is_shown:
                failed.append(f"python -m {command}\n{said}{(progress or '')[-6000:]}")
    finally:
        for process in running:
            process.kill()
            process.wait()
    if failed:
        raise CampaignFailed("\n".join(failed))
    return found
