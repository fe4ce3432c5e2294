# The two commands of the README: `make demo` and `make test`; and `make install`. Each installs what a fresh Debian 12
# with a Rust toolchain lacks when it runs as root, and says what is missing when it does not.

SHELL := /bin/bash
CARGO ?= cargo
TWILL := target/debug/twill
export PATH := $(PATH):/usr/sbin:/sbin

# What each command needs: a file or program, and the Debian package that has it.
BUILD_NEEDS := cc:gcc protoc:protobuf-compiler /usr/include/google/protobuf/empty.proto:libprotobuf-dev
DEMO_NEEDS  := $(BUILD_NEEDS) nft:nftables
TEST_NEEDS  := $(DEMO_NEEDS) iptables:iptables ip:iproute2 ping:iputils-ping etcd:etcd-server etcdctl:etcd-client \
               setpriv:util-linux ethtool:ethtool /usr/lib/cni/bridge:containernetworking-plugins \
               containerd:containerd runc:runc /usr/share/doc/busybox-static:busybox-static systemd-analyze:systemd \
               udevadm:udev openssl:openssl kubectl:kubernetes-client faketime:faketime zsh:zsh fish:fish \
               groff:groff-base promtool:prometheus chromium:chromium chromedriver:chromium-driver

# Static programs: of musl where this toolchain has its library, else of glibc, whose name services are then only the
# built-in ones (files and dns, in /etc/nsswitch.conf).
MUSL = $(shell uname -m)-unknown-linux-musl
HAS_MUSL = $(wildcard $(shell rustc --print target-libdir --target $(MUSL) 2>/dev/null)/libstd-*.rlib)
STATIC_TARGET ?= $(if $(HAS_MUSL),$(MUSL),$(MUSL:musl=gnu))
STATIC_NEEDS = $(BUILD_NEEDS) readelf:binutils $(if $(findstring musl,$(STATIC_TARGET)),musl-gcc:musl-tools)
DIST := target/static
STATIC_CARGO = RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --target $(STATIC_TARGET)

# Where `make install` puts things; see manifests/install. With BINDIR_FROM, programs that were built already are taken
# from there, and nothing is built.
DESTDIR ?=
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
CNIDIR ?= /opt/cni/bin
CNI_NAMES ?= flannel twill
PLACES = DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" BINDIR="$(BINDIR)" CNIDIR="$(CNIDIR)" CNI_NAMES="$(CNI_NAMES)"

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit bench faults static install uninstall needs-demo needs-test needs-static

help:
	@echo "make demo   three hosts on this machine: vxlan and host-gw, IPv4 and dual-stack"
	@echo "make test   formatting, lints, documentation, every test, every benchmark once"
	@echo "make bench  the benchmarks, measured; see benches/README.md"
	@echo "make faults every fault of the field on this machine, two hours long; writes benches/faults.md"
	@echo "make static     twill and twill-cni as static programs, in $(DIST)"
	@echo "make install    them, units, CNI configuration, completions, manual pages; with DESTDIR=, PREFIX= and others"
	@echo "make uninstall  removes what that installed"

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

# The program as it is shipped, and one scenario at a time: what is measured is the fault, not its neighbours. Anew, or with
# ONLY=deletions::vxlan that part of the record.
RECORD ?= benches/faults.md
faults: needs-test
	$(if $(ONLY),,rm -f $(RECORD) $(RECORD:.md=.json))
	TWILL_LONG=1 TWILL_RECORD=$(RECORD) $(CARGO) test --release --test faults -- --test-threads=1 $(ONLY); \
		status=$$?; sed -n '/^| scenario/,$$p' $(RECORD); \
		echo "to show to somebody: $(or $(CARGO_TARGET_DIR),target)/tmp/faults.html"; exit $$status

# The plugin by itself and for size: its features would be united with the agent's otherwise, and its profile is its own.
static: needs-static
	@echo "static programs for $(STATIC_TARGET)"
	$(STATIC_CARGO) --profile dist --bin twill
	$(STATIC_CARGO) --profile cni --bin twill-cni
	@mkdir -p $(DIST)
	@cp -f target/$(STATIC_TARGET)/dist/twill target/$(STATIC_TARGET)/cni/twill-cni $(DIST)/
	@for program in $(DIST)/twill $(DIST)/twill-cni; do \
		if readelf -ldW $$program | grep -E 'INTERP|NEEDED'; then echo "$$program is not static"; exit 1; fi; \
		echo "$$program: static, $$(stat -c %s $$program) bytes"; \
	done

install: $(if $(BINDIR_FROM),,static)
	@$(PLACES) FROM=$(or $(BINDIR_FROM),$(DIST)) manifests/install install

uninstall:
	@$(PLACES) manifests/install uninstall

needs-static:
	@$(call provide,$(STATIC_NEEDS))

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
