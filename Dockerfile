# relay as a container: docker build --tag relay .
# It runs as a numeric user that is not root, and needs nothing writable but its volume: docker run --read-only.
# docs/installing.md says how to run it.

# To pin the base to one image for good, name it by digest:
#   docker build --build-arg PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# Two environments: relay's own, without pip, and the one that builds it. The locked versions come first: they change
# seldom. A package index of your own: docker build --secret id=pip.conf,src=pip.conf
COPY requirements.lock requirements-build.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/relay \
    && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary=:all: --requirement requirements-build.lock \
    && /opt/build/bin/pip --python /opt/relay/bin/python install \
        --require-hashes --only-binary=:all: --requirement requirements.lock
COPY MANIFEST.in README.md pyproject.toml config.example.yaml ./
COPY relay relay
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
    && /opt/build/bin/pip --python /opt/relay/bin/python install --no-deps --no-index /dist/relay-*.whl \
    && /opt/build/bin/pip --python /opt/relay/bin/python check

FROM ${PYTHON_IMAGE}
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="relay" \
      org.opencontainers.image.description="A webhook relay for headless content systems: proves, stores, filters and delivers every event." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/relay/bin:$PATH PYTHONDONTWRITEBYTECODE=1 RELAY_CONFIG=/etc/relay/config.yaml
COPY --from=build /opt/relay /opt/relay
COPY --chmod=0755 packaging/docker/relay-ready /opt/relay/bin/relay-ready
COPY --chmod=0644 packaging/docker/config.yaml /etc/relay/config.yaml
# A volume that docker makes takes owner and mode from here.
RUN install -d -o 10001 -g 10001 -m 0700 /var/lib/relay
# A number, so that whoever forbids root (runAsNonRoot) can see that it is none.
USER 10001:10001
WORKDIR /var/lib/relay
VOLUME /var/lib/relay
# 8080 for the content systems, 8081 for operators
EXPOSE 8080 8081
# relay then finishes what is in flight, for up to 20 s: docker stop --time 45
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["relay-ready"]
ENTRYPOINT ["relay"]
CMD ["serve"]
