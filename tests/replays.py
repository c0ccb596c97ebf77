"""nbval over notebooks, two at a time, each in a process that begins where the libraries are loaded and in a
kernel that is forked from it: loading them costs more than most notebooks do.

    python replays.py FOLDER STEM ...      beside the artifacts in FOLDER/STEM/runs

FOLDER/STEM/said.txt receives what pytest says, and FOLDER/STEM/ended, at the end, its exit status.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
from pathlib import Path

import shells

AT_ONCE = 2
PATIENCE = "--nbval-cell-timeout 600 --nbval-kernel-startup-timeout 600"
OPTIONS = f"--nbval -p outputs --again {PATIENCE} -q -p no:cacheprovider".split()
fork = multiprocessing.get_context("fork")


class Kernel:
    """What nbval asks of a kernel's manager."""

    def __init__(self, file, folder):
        self.process = fork.Process(target=serve, args=(file, folder), daemon=True)
        self.process.start()

    def is_alive(self):
        return self.process.is_alive()

    def interrupt_kernel(self):
        os.kill(self.process.pid, signal.SIGINT)

    def shutdown_kernel(self, now=True):
        self.process.kill()
        self.process.join()


def serve(file, folder):
    from ipykernel.kernelapp import launch_new_instance

    os.chdir(folder)
    launch_new_instance(argv=["-f", file])


def begun(cwd, startup_timeout=60, **_):
    """A forked kernel that has begun in the folder `cwd`, and its client: nbval's `start_new_kernel`."""
    from jupyter_client import BlockingKernelClient
    from jupyter_client.connect import write_connection_file

    file, _ = write_connection_file()
    made, client = Kernel(file, cwd), BlockingKernelClient(connection_file=file)
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=startup_timeout)
    except RuntimeError:
        client.stop_channels()
        made.shutdown_kernel()
        raise
    return made, client


def replay(stem, folder):
    """Ends this process with pytest's exit status."""
    with open(folder / "said.txt", "w") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    os.environ |= {"RLHF_NB_RUNS": f"{folder}/runs"}
    import pytest
    from nbval import kernel

    kernel.start_new_kernel = begun
    sys.exit(pytest.main([*OPTIONS, str(shells.NOTEBOOKS / f"{stem}.ipynb")]))


def main(folder, stems):
    shells.load()
    running = {}
    while stems or running:
        if stems and len(running) < AT_ONCE:
            stem = stems.pop(0)
            process = fork.Process(target=replay, args=(stem, folder / stem))
            process.start()
            running[process.sentinel] = stem, process
            continue
        for sentinel in multiprocessing.connection.wait(running):
            stem, process = running.pop(sentinel)
            process.join()
            (folder / stem / "ends").write_text(str(process.exitcode))
            (folder / stem / "ends").rename(folder / stem / "ended")  # whole as soon as it is there


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
