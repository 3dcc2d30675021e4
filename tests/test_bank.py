"""The bank, one minute of it: `make soak` runs ten. `BANK_SECONDS` sets how long."""

import json
import os
import subprocess
import sys
from pathlib import Path

SECONDS = os.environ.get("BANK_SECONDS", "60")


def test_a_bank_in_the_rain_loses_and_doubles_nothing():
    """16 processes, keys, each event delivered 1 to 3 times: 1,000 accounts, then 10; the faults are counted and printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DSQL_"))}
    done = subprocess.run(
        [sys.executable, "-m", "tests.bank", "--seconds", SECONDS, "--seed", "7"],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    banks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["accounts"] for each in banks] == [1000, 10]
    for each in banks:
        assert (each["lost"], each["doubled"], each["answers_that_differ"]) == (0, 0, 0)
        assert each["answers"] >= each["transfers"] > 0
        assert each["faults"] > 10
