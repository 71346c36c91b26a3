# The same environment as everywhere (requirements.txt), for Kubernetes and for anyone with Docker.
#   docker build -t maskcls .
# CUDA comes with the wheels; the host needs NVIDIA's driver and container toolkit alone.
# To pin the base to the byte: --build-arg BASE=python:3.11.14-slim-bookworm@sha256:...
ARG BASE=python:3.11.14-slim-bookworm
FROM ${BASE}

# KubeRay's probes ask by wget.
RUN apt-get update && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*

COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt

COPY maskcls /app/maskcls
COPY ray_jobs /app/ray_jobs
COPY configs /app/configs
# The user below may not write there: else each process would compile all that it imports.
RUN python -m compileall -q /app
# Not a virtual environment: KubeRay starts Ray in a login shell, which sets its own PATH.
ENV PYTHONPATH=/app RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
WORKDIR /app

RUN useradd --create-home --uid 1000 ray
USER 1000
