# The gateway alone: no speech engines (espeak-ng is GPL, see NOTICE), no compiler, no pip, not root. With
# `--build-arg SPEECH=1` it has the engines, and so the local upstream that works without an account: compose.yaml.
#
#   docker build -t wavegate .
#   docker run -p 50051:50051 -e SMALLEST_API_KEY wavegate

FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# What it runs on, exactly as locked. A layer of its own: it changes with the lock only.
COPY requirements-runtime.lock ./
RUN python -m venv --without-pip /opt/wavegate \
 && pip --python /opt/wavegate install --no-deps --require-hashes --requirement requirements-runtime.lock

# The build backend comes from the developers' lock; what else is in there stays behind in this stage.
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes --requirement requirements.lock

# The engines alone: what pocketsphinx depends on is for microphones.
ARG SPEECH=
COPY requirements-speech.lock ./
RUN if [ -n "$SPEECH" ]; then \
      awk '/^[a-z]/ { engine = /^(espeakng-loader|pocketsphinx)==/ } engine' requirements-speech.lock > speech.lock \
      && pip --python /opt/wavegate install --no-deps --require-hashes --requirement speech.lock; \
    fi

COPY pyproject.toml README.md LICENSE NOTICE ./
COPY server server
COPY clients/python clients/python
RUN python -m hatchling build --target wheel --directory /dist \
 && pip --python /opt/wavegate install --no-deps /dist/*.whl \
 && python -m compileall -q /opt/wavegate/lib

FROM python:3.13-slim-bookworm
LABEL org.opencontainers.image.title="wavegate" \
      org.opencontainers.image.description="A gRPC speech gateway over the Smallest AI Waves API" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/wavegate /opt/wavegate
COPY LICENSE NOTICE /opt/wavegate/
ENV PATH=/opt/wavegate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    WAVEGATE_LISTEN=0.0.0.0:50051 \
    WAVEGATE_LOG_FORMAT=json
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 50051
# Set another address by WAVEGATE_LISTEN, not by --listen: the check reads it, too.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s --retries=3 \
  CMD ["wavegate-server", "healthcheck"]
ENTRYPOINT ["wavegate-server"]
