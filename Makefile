# selfstead. `make up` runs a server from this checkout, `make test` runs every
# test; both install what is missing from Debian's packages first and want root.

SHELL       := /bin/bash -euo pipefail
GO          ?= go
DIR         ?= .stead
LISTEN      ?= 127.0.0.1:8080
EXAMPLE     := examples/services/hello-world
EXAMPLE_PKG := bin/hello-world.s9pk
GUEST       := server/embedded/dist/start-container

# Services that tests run on a server: a pair of examples, and the pair that
# calls every effect. They share the examples' node_modules.
SERVICES    := examples/services/ledger examples/services/vault server/e2e/conformance/peer server/e2e/conformance/probe
# And one that is described as data: packed as it stands, nothing to compile.
DESCRIBED   := examples/services/radicale
SERVICE_PKGS := $(foreach s,$(SERVICES) $(DESCRIBED),bin/packages/$(notdir $s).s9pk)
SERVICE_MODULES := examples/services/node_modules

# Debian packages: what a build needs, what packing and the base image need on
# top, and what only tests call (the nft, lxc-start and ip programs as oracles).
BUILD_PKGS  := gcc libc6-dev pkg-config lxc-dev liblxc-common
RUN_PKGS    := mmdebstrap squashfs-tools ca-certificates
TEST_PKGS   := lxc nftables iproute2 conntrack strace b3sum miniupnpd-nftables busybox-static e2fsprogs btrfs-progs curl podman \
	qemu-system-x86 python3-venv

export CGO_ENABLED := 1

# A tree without history, or one that belongs to somebody else, builds too.
VCS := $(shell git status >/dev/null 2>&1 && echo true || echo false)

# What tests of the whole program run on.
TEST_ENV = STEAD_BIN=$(abspath bin/stead) STEAD_BASE="$$(cat bin/base.path)" STEAD_EXAMPLE=$(abspath $(EXAMPLE_PKG)) STEAD_PACKAGES=$(abspath bin/packages) VM_CACHE=$(abspath bin/vm) VM_SUITE=$(VM_SUITE)

.PHONY: up build test check unit api vm vm-image example base bench fuzz crash golden clean deps-build deps-run deps-test

up: build $(EXAMPLE_PKG) base
	@exec bin/stead up --dir $(DIR) --listen $(LISTEN) --base-image "$$(cat bin/base.path)" --package $(EXAMPLE_PKG)

build: deps-build $(GUEST)
	$(GO) build -trimpath -buildvcs=$(VCS) -o bin/stead ./server/cmd/stead

# The static program that runs inside containers, embedded into stead.
$(GUEST): $(shell find lxcrt/guest -name '*.go' -not -name '*_test.go') go.mod
	@mkdir -p $(@D)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./lxcrt/guest/cmd/start-container

# The example service: bundled by esbuild, packed and signed by our own tool.
example: $(EXAMPLE_PKG) $(SERVICE_PKGS)
$(EXAMPLE_PKG): $(shell find $(EXAMPLE) -type f -not -path '*/node_modules/*' -not -path '*/javascript/*') | build deps-run
	cd $(EXAMPLE) && npm install --no-audit --no-fund --no-package-lock --loglevel=error && npm run -s check && npm run -s build
	test -e bin/example-key.pem || bin/stead s9pk key new bin/example-key.pem
	bin/stead s9pk pack --key bin/example-key.pem --arch "$$(uname -m)" --cache bin/cache/selfstead/images --output $@ $(EXAMPLE)

$(SERVICE_MODULES)/.done: examples/services/package.json | deps-run
	cd $(dir $(@D)) && npm install --no-audit --no-fund --no-package-lock --loglevel=error
	touch $@

SERVICE_SOURCES = $(shell find $1 -type f -not -path '*/node_modules/*' -not -path '*/javascript/*')

bin/packages/.checked: $(SERVICE_MODULES)/.done $(call SERVICE_SOURCES,$(SERVICES) server/e2e/conformance)
	@mkdir -p $(@D)
	cd examples/services && node_modules/.bin/tsc --noEmit -p .
	cd server/e2e/conformance && $(abspath $(SERVICE_MODULES))/.bin/tsc --noEmit -p .
	touch $@

define service
bin/packages/$(notdir $1).s9pk: $(call SERVICE_SOURCES,$1) bin/packages/.checked $(EXAMPLE_PKG) | build
	cd $1 && $(abspath $(SERVICE_MODULES))/.bin/esbuild startos/index.ts --bundle --tsconfig=../tsconfig.json --platform=node --target=node20 \
		--format=cjs --external:encoding --log-level=warning --outfile=javascript/index.js
	bin/stead s9pk pack --key bin/example-key.pem --arch "$$$$(uname -m)" --cache bin/cache/selfstead/images --output $$@ $1
endef
$(foreach s,$(SERVICES),$(eval $(call service,$s)))

define described
bin/packages/$(notdir $1).s9pk: $(call SERVICE_SOURCES,$1) $(wildcard s9pk/pack/service/*.go s9pk/pack/service/program/dist/*) $(EXAMPLE_PKG) | build
	@mkdir -p $$(@D)
	bin/stead s9pk pack --key bin/example-key.pem --arch "$$$$(uname -m)" --cache bin/cache/selfstead/images --output $$@ $1
endef
$(foreach s,$(DESCRIBED),$(eval $(call described,$s)))

# The Debian image that every service container starts from.
base: bin/base.path
bin/base.path: | build deps-run
	bin/stead base build --cache bin/base > $@.part
	mv $@.part $@

test: deps-build deps-run deps-test build check unit vm

check: $(GUEST)
	@out=$$(find . -name '*.go' -not -path '*/node_modules/*' -exec gofmt -l {} +); test -z "$$out" || { echo "not gofmt: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

# The contract against a live server: schemathesis, which is Python's.
SCHEMATHESIS := 4.32.5
API_SECONDS  ?= 60
API_SEED     ?= 1
bin/venv/bin/schemathesis:
	python3 -m venv bin/venv
	bin/venv/bin/pip install --quiet --disable-pip-version-check schemathesis==$(SCHEMATHESIS)

api: build example base bin/venv/bin/schemathesis
	bash server/e2e/schemathesis.sh $(abspath bin/stead) "$$(cat bin/base.path)" $(abspath $(EXAMPLE_PKG)) $(abspath bin/venv/bin/schemathesis) $(API_SECONDS) $(API_SEED)

unit: example base vm-image
	$(TEST_ENV) $(GO) test -timeout 20m ./...
	CGO_ENABLED=0 $(GO) test -run TestWithoutLiblxc ./lxcrt
	$(GO) test -tags nolxc -run TestWithoutLiblxc ./lxcrt
	$(TEST_ENV) $(GO) test -timeout 15m -race ./patchdb/... ./nat/... ./lxcrt ./s9pk \
		./server ./server/account ./server/operation ./server/journal ./server/network ./server/service/...

# What needs a kernel that this one is not, on Debian's own in a virtual machine:
# cgroup v2, AppArmor, the kernel's WireGuard, and on Debian 12 what Linux 6.1
# has to do another way. A test that would skip there fails. The machine has this
# system's release, since the test binaries are linked with its liblxc.
VM       = $(GO) run ./lxcrt/lxcrttest/vm/cmd/vm
comma    := ,
VM_SUITE := $(shell . /etc/os-release 2>/dev/null; echo $${VERSION_CODENAME:-bookworm})
VM_HAS   := cgroup2,apparmor,wireguard,psi$(if $(filter bookworm,$(VM_SUITE)),$(comma)linux6.1)
# What no kernel changes is left out: a translated machine is five to ten times
# slower than this one.
VM_TESTS ?= './lxcrt=^(TestExpected|TestSuite)$$!TestSuite/(events|exit|refused|terminal|upper_size|edges|leftovers|bridge)$$' \
	./nat/wg './nat=^(TestOracle|TestHairpin(WireGuard)?)$$!/netfilter_false$$'

vm: vm-image
	$(VM) test -timeout 10m -cache bin/vm -suite $(VM_SUITE) -expect $(VM_HAS) -modules br_netfilter,fuse $(VM_TESTS)

vm-image: deps-run deps-test
	@$(VM) image -cache bin/vm -suite $(VM_SUITE) >/dev/null

# Our figure beside the peer's or the limit's, as ratios; the machine should be
# idle otherwise. COUNT rounds of what is measured end to end.
COUNT ?= 5
bench: example base deps-test
	@echo "== from the last byte of an upload to a healthy answer; resident memory"
	@$(TEST_ENV) $(GO) test -run '^$$' -bench Upload -benchtime $(COUNT)x ./server/e2e
	@$(TEST_ENV) $(GO) test -run '^$$' -bench Resident -benchtime 1x ./server/e2e
	@echo "== what idle services and their subscriptions cost the server; an effect's round trip from Node"
	@$(TEST_ENV) $(GO) test -run '^$$' -bench Idle -benchtime 1x ./server/e2e
	@$(TEST_ENV) $(GO) test -run '^$$' -bench . -benchtime 1x ./server/service
	@for p in ./server ./nat ./s9pk ./s9pk/remote ./lxcrt ./lxcrt/guest ./patchdb; do echo "== $$p"; $(TEST_ENV) $(GO) test -run '^$$' -bench . $$p; done
	@echo "== patchdb beside bbolt and SQLite"
	@cd patchdb/bench && $(GO) run .

# Each fuzz target for FUZZTIME.
FUZZTIME ?= 1m
fuzz:
	@grep -rl --include='*_test.go' --exclude-dir=node_modules '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$dir/*_test.go); do \
			echo "== $$dir $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$dir; done; done

# patchdb's crash tests at every place, where the tests of a day take samples.
crash: deps-test
	PATCHDB_CRASHES=20 PATCHDB_STRACE_STEP=1 $(GO) test -timeout 60m -v -run 'Crash|Strace|Kill' ./patchdb | grep -v '^ *\(=== \|--- PASS\)'

# Golden files, the Node runtime's one file, and the program of described
# services; read the diff.
golden: $(GUEST)
	cd lxcrt/guest/node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && node build.mjs
	cd s9pk/pack/service/program && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run -s build
	$(GO) test ./server ./nat ./nat/gateway ./lxcrt -run 'Golden|OpenAPI|Contract' -update

deps-build:
	@.ci/deps $(BUILD_PKGS)
deps-run:
	@.ci/deps $(RUN_PKGS)
deps-test:
	@.ci/deps $(TEST_PKGS)

clean:
	rm -rf bin .cache $(GUEST) $(EXAMPLE)/javascript $(EXAMPLE)/node_modules $(SERVICE_MODULES) $(addsuffix /javascript,$(SERVICES))
