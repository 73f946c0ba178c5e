# SPDX-License-Identifier: MIT
import pytest
import ray

from rllib_per.dqn.runner_health import end_silent
from tests.support.processes import is_alive, process_of, stop

pytestmark = [pytest.mark.ray, pytest.mark.faults]
NUM_CPUS = 1


@ray.remote(num_cpus=0)
class Actor:
    pass


def test_those_who_hang_are_ended_and_no_others(one_ray, caplog):
    actors = [Actor.remote() for _ in range(3)]
    processes = [process_of(actor) for actor in actors]
    assert end_silent(actors, "actors", patience_s=60.0) == 0
    stop(processes[1])
    assert end_silent(actors, "actors", patience_s=5.0) == 1
    with pytest.raises(ray.exceptions.RayActorError):
        process_of(actors[1])
    assert [process_of(actors[k]) for k in (0, 2)] == [processes[0], processes[2]]
    assert is_alive(processes[0])
    assert "1 of 3 actors hang and were ended" in caplog.text
    assert end_silent([], "actors") == 0
