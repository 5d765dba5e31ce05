# The images of Sternpost: --target operator | eagle-eye | checkpoint | memory.
#
# BASE is any Debian 12 or newer with python3 >= 3.11 and its venv module. Each image is that base and one folder,
# /opt/sternpost: a virtual environment with the wheel, and with what requirements.lock pins for the image's extra. Which
# index pip asks, and with which certificates, is configured from outside (pip.conf, volumes), not here.
ARG BASE=python:3.12-slim-bookworm

# --- what builds, and stays behind ---
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml requirements.lock ./
COPY tools tools
RUN python3 -m venv /opt/build \
 && python3 tools/locked.py --package hatchling > /tmp/hatchling.txt \
 && /opt/build/bin/pip install --quiet --require-hashes --only-binary :all: --requirement /tmp/hatchling.txt

FROM build AS wheel
COPY LICENSE README.md ./
COPY operator operator
COPY sidecars sidecars
COPY memory_service memory_service
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /dist .

FROM build AS operator-venv
RUN /opt/build/bin/python tools/image_venv.py requirements operator
COPY --from=wheel /dist /dist
RUN /opt/build/bin/python tools/image_venv.py project

FROM build AS eagle-eye-venv
RUN /opt/build/bin/python tools/image_venv.py requirements eagle-eye
COPY --from=wheel /dist /dist
RUN /opt/build/bin/python tools/image_venv.py project

FROM build AS checkpoint-venv
RUN /opt/build/bin/python tools/image_venv.py requirements checkpoint
COPY --from=wheel /dist /dist
RUN /opt/build/bin/python tools/image_venv.py project

# The kernels' machine code; a source's time is part of its key, and a layer keeps whole seconds of it.
RUN find /opt/sternpost -path '*/sternpost_checkpoint/*.py' -exec touch --date=2026-01-01T00:00:00Z {} + \
 && PATH=/opt/sternpost/bin:$PATH STERNPOST_KERNEL_CACHE=/opt/sternpost/kernels STERNPOST_KERNELS_BUILT=/opt/sternpost/kernels \
    python3 -P -m sternpost_checkpoint.codec.kernels.warm \
 && chmod -R a+rX /opt/sternpost/kernels

FROM build AS memory-venv
RUN /opt/build/bin/python tools/image_venv.py requirements memory
COPY --from=wheel /dist /dist
RUN /opt/build/bin/python tools/image_venv.py project

# --- what runs: no package manager of Python, no compiler, not as root, nothing to write ---
FROM ${BASE} AS service
ENV PATH=/opt/sternpost/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    TYPER_USE_RICH=0 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title=sternpost \
      org.opencontainers.image.licenses=Apache-2.0
WORKDIR /tmp
USER 65532:65532

FROM service AS operator
COPY --from=operator-venv /opt/sternpost /opt/sternpost
CMD ["sternpost", "operator"]

# The launcher's init step runs in this image, too: the wheel holds all packages.
FROM service AS eagle-eye
COPY --from=eagle-eye-venv /opt/sternpost /opt/sternpost
CMD ["python3", "-m", "sternpost_eagle_eye", "sidecar"]

FROM service AS checkpoint
ENV STERNPOST_KERNELS_BUILT=/opt/sternpost/kernels
COPY --from=checkpoint-venv /opt/sternpost /opt/sternpost
CMD ["python3", "-m", "sternpost_checkpoint", "sidecar"]

FROM service AS memory
COPY --from=memory-venv /opt/sternpost /opt/sternpost
CMD ["sternpost-memory", "serve", "--help"]
