# Training and the steps after it: on CUDA, or on a CPU with `--build-arg LOCK=cpu.lock`.
ARG BASE=python:3.11-slim-bookworm

# A folder of wheels beside pip's index, where `--build-context wheels=FOLDER` names one.
FROM scratch AS wheels

FROM ${BASE} AS build
ARG LOCK=gpu.lock TORCH_CPU_INDEX=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt PYTHONWARNINGS=ignore
WORKDIR /src
COPY requirements requirements
COPY infra/docker infra/docker
RUN --mount=type=bind,from=wheels,target=/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=certificates,target=/etc/ssl/certs/ca-certificates.crt \
    PIP_FIND_LINKS=/wheels infra/docker/install.sh /opt/afterclick "$LOCK"
COPY . .
RUN /opt/afterclick/bin/pip install --quiet --no-index --no-deps --no-build-isolation . \
    && infra/docker/slim.sh /opt/afterclick

FROM ${BASE}
ARG VERSION=0.1.0 REVISION=unknown SOURCE=unknown
LABEL org.opencontainers.image.title="afterclick-train" org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}"
# The base's own pip, which the environment does not use.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip \
    /usr/lib/python3.11/ensurepip /usr/share/python-wheels
# Triton compiles its driver's module with a C compiler at the first kernel, on a GPU; nothing else here needs one.
ARG LOCK=gpu.lock
RUN [ "$LOCK" != gpu.lock ] || (apt-get update -qq && apt-get install -qq --yes --no-install-recommends gcc libc6-dev \
    >/dev/null && rm -rf /var/lib/apt/lists/*)
COPY --from=build /opt/afterclick /opt/afterclick
# Any user may run it: home is a folder that pods mount, and a name needs no entry in /etc/passwd.
ENV PATH=/opt/afterclick/bin:$PATH HOME=/tmp USER=afterclick PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
USER 65532:65532
ENTRYPOINT ["afterclick"]
