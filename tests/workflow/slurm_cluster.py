"""A Slurm cluster of this machine alone, for tests: munged, slurmctld and two nodes, whose files all lie in one folder.

To try something in it, with Debian's packages slurm-wlm and munge:  python -m tests.workflow.slurm_cluster sinfo
"""

from __future__ import annotations

import ctypes
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sdpg.experiment.launch import PR_SET_PDEATHSIG

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "salloc", "scancel", "scontrol", "sinfo", "squeue")
# The first node has this machine's name, which can be resolved: processes of several nodes meet there. Jobs of partition `high`
# preempt those of `low`, which have GRACE seconds to end. A credential's life decides how long a requeued job has to wait.
HOST = socket.gethostname()
NODES, GRACE = (HOST, f"{HOST}-second"), 60
CONFIG = """
ClusterName=sdpg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
MailProg=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory={memory}
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory={memory}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime={grace}
PartitionName=high Nodes=ALL PriorityTier=2
"""


def missing() -> str | None:
    """Return why there can be no cluster on this machine as it is, or None."""
    absent = [name for name in (*DAEMONS, *COMMANDS) if _find(name) is None]
    return f"{', '.join(absent)} not found (Debian: apt install slurm-wlm munge)" if absent else None


def install() -> None:
    """Install Debian's packages, as root. Raises CalledProcessError."""
    quiet = {"capture_output": True, "check": True, "timeout": 300}
    subprocess.run(["apt-get", "update"], **quiet)
    command = ["apt-get", "install", "--yes", "--no-install-recommends", "slurm-wlm", "munge"]
    subprocess.run(command, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, **quiet)


class Cluster:
    """The running cluster, as a context. Its commands need `environment`; nodes have `cpus` each, whatever the machine has."""

    def __init__(self, folder: Path, cpus: int = 2, memory: int = 12_000):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.processes = folder, []
        self.config = folder / "slurm.conf"
        facts = {"host": HOST, "user": getpass.getuser(), "ports": _free_ports(3), "nodes": NODES}
        self.config.write_text(CONFIG.format(folder=folder, cpus=cpus, memory=memory, grace=GRACE, **facts))
        # Commands that know their cluster by themselves: Snakemake's job step drops SLURM_CONF with Slurm's other variables.
        self.environment = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}"}

    def __enter__(self) -> Cluster:
        for name in ("bin", "state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(exist_ok=True)
        for name in COMMANDS:
            script = self.folder / "bin" / name
            script.write_text(f'#!/bin/sh\nSLURM_CONF={self.config} exec {_find(name)} "$@"\n')
            script.chmod(0o755)
        key, files = self.folder / "munge.key", {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        try:
            options = [f"--{option}={self.folder}/munge.{ending}" for option, ending in files.items()]
            self._start("munged", "--foreground", "--force", f"--key-file={key}", *options)
            self._until(lambda: (self.folder / "munge.socket").exists(), "munged does not answer")
            self._start("slurmctld", "-D", "-f", str(self.config))
            for node in NODES:
                self._start("slurmd", "-D", "-f", str(self.config), "-N", node)
            idle = ["sinfo", "--noheader", "--partition=low", "--format=%T %D"]
            self._until(lambda: self.run(*idle, ok=False).strip() == f"idle {len(NODES)}", "the nodes do not come up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc) -> None:
        if len(self.processes) > 1:
            self.run("scancel", f"--user={getpass.getuser()}", ok=False)
        for process in reversed(self.processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command: str, ok: bool = True) -> str:
        """Run a command of Slurm -> its standard output."""
        command = (str(self.folder / "bin" / command[0]), *command[1:])
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not ok, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, dict[str, str]]:
        """Return what Slurm says of each job that it remembers: number -> {"JobState": "RUNNING", ...}."""
        texts = [text for text in self.run("scontrol", "--oneliner", "show", "job").splitlines() if text.startswith("JobId")]
        return {job["JobId"]: job for job in (dict(re.findall(r"(\w+)=(\S*)", text)) for text in texts)}

    def logs(self) -> str:
        """Return the ends of the daemons' logs."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))

    def _start(self, name: str, *options: str) -> None:
        with (self.folder / f"{name}.out").open("a") as out:
            own = {"start_new_session": True, "preexec_fn": _end_with_parent}
            self.processes.append(
                subprocess.Popen([_find(name), *options], env=self.environment, stdout=out, stderr=out, **own)
            )

    def _until(self, condition, what: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not condition():
            said = "".join(path.read_text() for path in self.folder.glob("*.out"))
            dead = any(process.poll() is not None for process in self.processes)
            assert time.monotonic() < end and not dead, f"{what}: {said[-2000:]}\n{self.logs()}"
            time.sleep(0.2)


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def main() -> None:
    """Run the command that follows in a new cluster."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the daemons end with it
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder)) as cluster:
        sys.exit(subprocess.run(sys.argv[1:] or ["sinfo"], env=cluster.environment).returncode)


if __name__ == "__main__":
    main()
