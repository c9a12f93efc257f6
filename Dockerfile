# execpool's image: one static binary, and what image/files lists beside it.
#
#   docker build -t execpool --build-arg REVISION=$(git rev-parse HEAD) .
#
# Where no container engine runs, `make image` assembles the same image of the same list;
# tests/image.rs fails when the two differ.
ARG RUST_VERSION=1.89
# The builder, which a registry could exchange below its tag. Where that matters, name it by its digest:
#   --build-arg BUILDER=docker.io/library/rust@sha256:…   (docker buildx imagetools inspect rust:1.89-bookworm)
ARG BUILDER=docker.io/library/rust:${RUST_VERSION}-bookworm

FROM ${BUILDER} AS build
ARG SOURCE_DATE_EPOCH=0
WORKDIR /src
COPY . .
RUN scripts/image --layout /out && mkdir -p /out/sockets

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="execpool"
LABEL org.opencontainers.image.description="A PostgreSQL connection pool per execution, under one budget per pod"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="${VERSION}"
LABEL org.opencontainers.image.revision="${REVISION}"
COPY --chmod=0755 --chown=0:0 --from=build /out/execpool /execpool
COPY --chmod=0644 --chown=0:0 LICENSE /LICENSE
COPY --chmod=0644 --chown=0:0 --from=build /out/sbom.cdx.json /sbom.cdx.json
COPY --chmod=0644 --chown=0:0 image/passwd /etc/passwd
COPY --chmod=0644 --chown=0:0 image/group /etc/group
COPY --chmod=0644 --chown=0:0 image/nsswitch.conf /etc/nsswitch.conf
COPY --chmod=0770 --chown=65532:65532 --from=build /out/sockets/ /run/execpool/
USER 65532:65532
EXPOSE 9464/tcp
ENTRYPOINT ["/execpool"]
CMD ["run"]
