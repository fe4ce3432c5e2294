# The two commands of the README: `make demo` and `make test`. Each installs what a fresh Debian 12 with a Rust
# toolchain lacks when it runs as root, and says what is missing when it does not.

SHELL := /bin/bash
CARGO ?= cargo
TWILL := target/debug/twill
export PATH := $(PATH):/usr/sbin:/sbin

# What each command needs: a file or program, and the Debian package that has it.
BUILD_NEEDS := cc:gcc protoc:protobuf-compiler /usr/include/google/protobuf/empty.proto:libprotobuf-dev
DEMO_NEEDS  := $(BUILD_NEEDS) nft:nftables
TEST_NEEDS  := $(DEMO_NEEDS) iptables:iptables ip:iproute2 etcd:etcd-server etcdctl:etcd-client setpriv:util-linux \
               ethtool:ethtool /usr/lib/cni/bridge:containernetworking-plugins containerd:containerd runc:runc \
               /usr/share/doc/busybox-static:busybox-static systemd-analyze:systemd udevadm:udev openssl:openssl \
               kubectl:kubernetes-client

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit bench needs-demo needs-test

help:
	@echo "make demo   three hosts on this machine: vxlan and host-gw, IPv4 and dual-stack"
	@echo "make test   formatting, lints, documentation, every test, every benchmark once"
	@echo "make bench  the benchmarks, measured; see benches/README.md"

demo: needs-demo
	$(CARGO) build --quiet --bin twill
	$(TWILL) demo
	$(TWILL) demo --ipv6
	$(TWILL) demo --backend host-gw
	$(TWILL) demo --backend host-gw --ipv6

test: needs-test lint unit

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet

# Each benchmark runs once, unoptimised: whether it works, not how fast.
unit:
	$(CARGO) test --workspace --no-fail-fast
	$(CARGO) bench --workspace --profile dev --benches -- --test

bench: needs-test
	$(CARGO) bench --workspace

needs-demo:
	@$(call provide,$(DEMO_NEEDS))

needs-test:
	@$(call provide,$(TEST_NEEDS))

# Installs, as root, or names, as somebody else, the packages of what is not there.
define provide
missing=""; \
for need in $(1); do \
	what=$${need%%:*}; \
	[[ $$what == /* ]] && { [[ -e $$what ]] || missing+=" $${need##*:}"; continue; }; \
	command -v $$what >/dev/null || missing+=" $${need##*:}"; \
done; \
[[ -z $$missing ]] && exit 0; \
if [[ $$(id -u) != 0 ]]; then \
	echo "missing Debian packages:$$missing"; echo "next: sudo apt-get install$$missing"; exit 1; \
fi; \
echo "installing$$missing"; \
export DEBIAN_FRONTEND=noninteractive; \
apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null
endef
