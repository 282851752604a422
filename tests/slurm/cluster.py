"""A real SLURM with two virtual nodes on this machine, for the tests: own munge, controller and node daemons."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BINARIES = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue")
NODES = ("vn1", "vn2")
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPort={ports[0]}
JobRequeue=1
KillWait=30
InactiveLimit=0
MinJobAge=300
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
NodeName=vn1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=8000 State=UNKNOWN
NodeName=vn2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str | None:
    """Why no cluster can be started here, or None."""
    missing = [name for name in BINARIES if find(name) is None]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)} missing)"
    return None if os.geteuid() == 0 else "starting SLURM's daemons needs root"


def find(name: str) -> str | None:
    """The path of a program; daemons lie in sbin, which not every PATH has."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `condition()` is true.

    Raises:
        TimeoutError: it never was; the message says what was waited for.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.3)


@dataclass(frozen=True)
class Cluster:
    """A running cluster: `env` is the environment in which its commands work."""

    folder: Path
    env: dict[str, str]

    def run(self, *command: str, check: bool = True, **env: str) -> str:
        """Standard output of a command on the cluster."""
        done = subprocess.run(
            command, env={**self.env, **env}, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def show(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says of a job: JobState, Restarts, ExitCode, Reason, …"""
        words = self.run("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job: str, seconds: float, states: tuple[str, ...] = ("COMPLETED",)) -> dict[str, str]:
        """Wait for a job to end in one of `states`; a job that ends otherwise is an error at once."""
        ends = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"} - set(states)

        def over() -> bool:
            state = self.show(job)["JobState"]
            assert state not in ends, f"job {job} ended as {state}"
            return state in states

        wait_for(over, seconds, f"job {job} to be {' or '.join(states)}")
        return self.show(job)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _end_jobs(cluster: Cluster) -> None:
    """Cancel all jobs and wait until their processes are gone: nobody could end them once the daemons have left."""
    cluster.run("scancel", "--user", "root", check=False)
    cluster.run("scancel", "--signal=KILL", "--full", "--user", "root", check=False)
    with suppress(TimeoutError):
        wait_for(lambda: not cluster.run("squeue", "-h", check=False).strip(), 40, "an empty queue")


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start munge, the controller and both nodes in `folder`; stop exactly these processes at the end."""
    for name in ("log", "state", "munge", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, ports=_free_ports(3)))
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    env["SLURM_CONF"] = str(folder / "slurm.conf")
    munge = [f"--{name}={folder}/munge/{name.split('-')[0]}" for name in ("socket", "key-file", "pid-file", "log-file")]
    munge.append(f"--seed-file={folder}/munge/seed")
    daemons = [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D"]]
    daemons += [["slurmd", "-D", "-N", node] for node in NODES]
    started: list[subprocess.Popen[bytes]] = []
    cluster = Cluster(folder, env)
    try:
        for name, *arguments in daemons:
            with open(folder / "log" / f"{name}-{len(started)}.out", "wb") as log:
                started.append(subprocess.Popen([str(find(name)), *arguments], env=env, stdout=log, stderr=log))
            if name == "munged":
                wait_for((folder / "munge" / "socket").exists, 10, "munge's socket")
        wait_for(
            lambda: cluster.run("sinfo", "-h", "-p", "main", "-o", "%T %D", check=False) == "idle 2\n", 60, "nodes"
        )
        yield cluster
    finally:
        if started:
            _end_jobs(cluster)
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
