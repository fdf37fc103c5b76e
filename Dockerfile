# One node: examples/node.rs. Replace it by your own program; deploy/kubernetes.yaml runs it.
#
#     docker build --tag stentor-node .
#     docker run --publish 8080:8080 --env STENTOR_COOKIE=... stentor-node --name a --http 0.0.0.0:8080

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package stentor-examples --example node

FROM debian:trixie-slim
COPY --from=build /src/target/release/examples/node /usr/local/bin/stentor-node
# Nobody's user and group, as numbers: Kubernetes then sees that it is not root.
USER 65534:65534
# Clients; other nodes, with links and gossip.
EXPOSE 8080/tcp 7946/tcp 7946/udp
# There is no HEALTHCHECK: whoever runs the container asks /readyz and /livez (see docs/OPERATING.md).
ENTRYPOINT ["/usr/local/bin/stentor-node"]
