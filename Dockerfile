# The service in an image: docker build -t firstsight .    With a card: --build-arg EXTRA=gpu (and a base that has CUDA 13 and cuDNN 9)
# Both stages begin with the same base, so that the environment finds the Python that it was made with.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
ARG EXTRA=cpu
WORKDIR /srv
RUN python3 -m venv /srv/venv
# The lock first: code changes daily, and then this layer is there already.
COPY requirements/${EXTRA}.txt requirements.txt
RUN /srv/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md ./
COPY app app
COPY training training
RUN /srv/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation .

FROM ${BASE}
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin firstsight \
    && mkdir -p /srv/var && chown firstsight /srv/var
WORKDIR /srv
COPY --from=build /srv/venv venv
COPY models models
USER 10001
# Beyond loopback the service asks for keys: mount a key file, as docker-compose.yml does. Only /srv/var is ever written to.
ENV FIRSTSIGHT_HOST=0.0.0.0 \
    FIRSTSIGHT_PORT=8000 \
    FIRSTSIGHT_MODELS_DIR=/srv/models \
    FIRSTSIGHT_STORE=sqlite:////srv/var/firstsight.db \
    FIRSTSIGHT_LOG_FORMAT=json \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
VOLUME /srv/var
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
    CMD ["/srv/venv/bin/python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["/srv/venv/bin/firstsight"]
CMD ["serve"]
