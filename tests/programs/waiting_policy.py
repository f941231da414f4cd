"""Say how OpenMP's threads wait in the processes of candidates, where those of the command line sleep."""

import os
from multiprocessing.connection import Connection

from hybridvit.errors import ProcessLost
from hybridvit.machine.threads import POLICY, let_waiting_threads_sleep
from hybridvit.measure import worker
from hybridvit.measure.candidate import Candidate
from hybridvit.measure.plan import Plan
from hybridvit.measure.subject import find_subject


def tell(candidate: Candidate, pipe: Connection) -> None:
    """In the process of a candidate."""
    raise ProcessLost(f"{candidate.runtime}: {os.environ.get(POLICY, 'as by default')}")


if __name__ == "__main__":
    let_waiting_threads_sleep()
    print(f"here: {os.environ[POLICY]}")
    worker.serve = tell
    plan = Plan(runtimes=("torch", "onnxruntime"), threads=1)
    for each in next(plan.groups([find_subject("fastvit_debug")])):
        try:
            worker.Worker(each)
        except ProcessLost as told:
            print(told)
