"""How long after a picture is sent is its class found by everybody?

Enrolments into a SQLite file over HTTP, one after the other. Each is followed at once by a classification of the same picture,
which must name the class: so the answer to the enrolment is the moment at which it is searchable.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import Figure, percentiles
from demo.brands import ENROLLED
from demo.scenes import SCENES, as_jpeg, photograph
from demo.server import serving

ENROLMENTS = 200


def measure() -> list[Figure]:
    seconds: list[float] = []
    with TemporaryDirectory() as folder, serving({"STORE": f"sqlite:///{Path(folder) / 'bench.db'}"}) as server:
        for number in range(ENROLMENTS):
            scene, brand = SCENES[number % len(SCENES)], ENROLLED[number % len(ENROLLED)]
            picture = as_jpeg(photograph(scene, brand.mark(), seed=number))
            started = time.perf_counter()
            server.http.post(f"/classes/{number}/examples", files={"image": picture}).raise_for_status()
            seconds.append(time.perf_counter() - started)
            asked = server.http.post("/classify", params={"classes": str(number)}, files={"image": picture}).raise_for_status()
            assert asked.json()["candidates"][0]["class"] == str(number)
    return percentiles("enrolment sent to searchable", seconds)
