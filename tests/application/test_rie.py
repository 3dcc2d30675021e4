"""The Runtime Interface Emulator as an execution environment: what a function finds in it, and that nothing of it stays."""

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dsql_local.sam.rie import Invocation, RuntimeInterfaceEmulator
from dsql_local.sam.template import Function

Emulate = Callable[..., RuntimeInterfaceEmulator]

SOURCE = """
import os, sys, time
import dsql_lambda
count = 0

def lambda_handler(event, context):
    global count
    count += 1
    print("line", count)
    print("to standard error", file=sys.stderr)
    if event.get("fail"):
        raise LookupError("as told")
    if event.get("exit"):
        os._exit(3)
    if event.get("hang"):
        time.sleep(60)
    return {
        "count": count, "pid": os.getpid(), "environment": dict(os.environ), "folder": os.getcwd(),
        "layer": dsql_lambda.__file__, "name": context.function_name, "remaining": context.get_remaining_time_in_millis(),
    }
"""


@pytest.fixture
def function(tmp_path: Path, built: Path) -> Function:
    """A function that tells what it finds, with the built layer."""
    (tmp_path / "app.py").write_text(SOURCE)
    return Function(
        name="Teller",
        code=tmp_path,
        handler="app.lambda_handler",
        layers=(built / "DsqlLayer",),
        environment={"DECLARED": "by the template", "EMPTY": ""},
        timeout=2,
        memory=256,
    )


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def told(invocation: Invocation) -> dict[str, object]:
    assert not invocation.failed, invocation
    answer = invocation.response
    assert isinstance(answer, dict)
    return answer


def test_a_function_finds_what_lambda_gives_it(emulate: Emulate, function: Function) -> None:
    """Lambda's variables and the layer; of the caller's environment and packages nothing that it did not ask for."""
    answer = told(emulate(function, {"GIVEN": "by the caller"}).invoke({}))
    environment = answer["environment"]
    assert isinstance(environment, dict)
    expected = {
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_NAME": "Teller",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "DECLARED": "by the template",
        "EMPTY": "",
        "GIVEN": "by the caller",
        "LAMBDA_TASK_ROOT": str(function.code),
    }
    assert expected.items() <= environment.items()
    assert environment["AWS_LAMBDA_RUNTIME_API"].startswith("127.0.0.1:")
    assert "PYTEST_CURRENT_TEST" not in environment
    assert answer["name"] == "Teller"
    assert answer["folder"] == str(function.code)
    assert str(answer["layer"]).startswith(str(function.layers[0]))
    assert 1000 < int(str(answer["remaining"])) <= 2000


def test_every_invocation_has_its_own_lines(emulate: Emulate, function: Function) -> None:
    """Standard output and standard error in order, and those of the invocation alone."""
    emulator = emulate(function)
    for count in (1, 2, 3):
        invocation = emulator.invoke({})
        assert told(invocation)["count"] == count
        assert invocation.log_lines == (f"line {count}", "to standard error")


def test_a_failing_function_is_an_answer(emulate: Emulate, function: Function) -> None:
    """Raised, died or out of time: each is told apart from a response, and the next invocation is served."""
    emulator = emulate(function)
    raised = emulator.invoke({"fail": True})
    assert (raised.failed, raised.response["errorType"]) == (True, "LookupError")
    assert any("as told" in line for line in raised.log_lines)
    assert told(emulator.invoke({}))["count"] == 2
    died = emulator.invoke({"exit": True})
    assert (died.failed, died.response["errorType"]) == (True, "Runtime.ExitError")
    late = emulator.invoke({"hang": True})
    assert (late.failed, late.response) == (True, "Task timed out after 2.00 seconds")
    assert told(emulator.invoke({}))["count"] == 1


def test_nothing_is_left_of_it(function: Function, alive: Callable[[int], bool]) -> None:
    """At its end the runtime, which the emulator puts into a process group of its own, is gone too."""
    before = set(Path("/tmp").glob("dsql-rie-*"))
    with RuntimeInterfaceEmulator(function) as emulator:
        runtime = int(str(told(emulator.invoke({}))["pid"]))
        assert alive(runtime)
        assert os.getpgid(runtime) == runtime
    assert not alive(runtime)
    assert set(Path("/tmp").glob("dsql-rie-*")) <= before
    emulator.close()  # once more is harmless


def test_nothing_is_left_when_the_caller_is_killed(function: Function, temporary: Path, alive: Callable[[int], bool]) -> None:
    """A caller that had no chance to clean up, in the middle of an invocation that would not have ended by itself."""
    (function.code / "caller.py").write_text(
        f"""
from pathlib import Path
from dsql_local.sam.template import Function
from dsql_local.sam.rie import RuntimeInterfaceEmulator
function = Function(name="F", code=Path({str(function.code)!r}), handler="app.lambda_handler", layers={function.layers!r},
                    environment={{}}, timeout=600, memory=128)
with RuntimeInterfaceEmulator(function) as emulator:
    print(emulator.invoke({{}}).response["pid"], flush=True)
    emulator.invoke({{"hang": True}})
""".replace("PosixPath", "Path")
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, str(function.code / "caller.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        runtime = int(caller.stdout.readline())
        watch = os.pidfd_open(parent(parent(runtime)))  # the emulator's guard
        caller.kill()
    assert select.select([watch], [], [], 20)[0], "the guard has not ended"
    os.close(watch)
    assert not alive(runtime)
    assert list(temporary.iterdir()) == []


def test_two_environments_do_not_meet(emulate: Emulate, function: Function) -> None:
    """Each has its own ports and its own process."""
    first, second = emulate(function), emulate(function)
    assert told(first.invoke({}))["pid"] != told(second.invoke({}))["pid"]
