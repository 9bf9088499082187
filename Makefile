# keepalive_guard: `make demo` shows it, `make test` runs every test, `make bench`
# measures it; they install what they need first (test/setup).  `make && make install`
# builds with PGXS against the pg_config in PATH (or PG_CONFIG=...).  `make unit` runs
# the tests that need no server, `make installcheck` those of pg_regress in a running one.
# `make lint` checks the sources, `make format` formats them, `make fuzz` runs the fuzzers.
# `make mutate` finds changes of the sources that no test notices.
# WERROR=1 makes warnings errors, as `make test`, `make lint` and `make unit` do.
# `make deb`, `make dist` and `make image-layout` make packages (doc/packages.md),
# `make test-packages` tests them.  `make test-core` runs PostgreSQL's own tests,
# `make test-sanitized` runs the suites on a server with the sanitizers and assertions,
# `make test-monitoring` tests monitoring/ with Prometheus and its exporters,
# `make test-report` opens keepalive_report() in a browser, `make test-clients` measures
# clients, poolers and proxies (doc/clients.md).  `make soak MINUTES=60` runs a server with
# mixed load, faults and changes.  `make test-matrix` runs `make test` with PostgreSQL 15,
# 17, 18 and 19 (VERSIONS="15 18": with these).  `make test-storm` connects 50,000
# times while processes are killed (doc/reliability.md).

MODULE_big = keepalive_guard
EXTENSION = keepalive_guard
DATA = $(wildcard sql/keepalive_guard--*.sql)
# What every session runs at its start and end is linked side by side: the kernel maps
# the neighbours of a page with it (fault-around), so a new process faults less often.
SESSION_OBJS = $(addprefix src/,pg/session/authentication.o pg/session/session.o \
	pg/session/own_slot.o pg/session/guc_hooks.o pg/setting_records.o \
	pg/policy/matching.o model/match.o model/effective.o kernel/socket_options.o \
	pg/clock.o pg/shared/state.o pg/shared/slots.o pg/session/ending.o model/cause.o \
	pg/session/record.o pg/endpoint.o pg/text.o pg/shared/events.o \
	pg/shared/path_evidence.o model/idle_path.o pg/shared/statistics.o kernel/tcp_info.o)
OBJS = $(SESSION_OBJS) $(filter-out $(SESSION_OBJS), \
	$(patsubst %.cpp,%.o,$(wildcard src/*.cpp src/*/*.cpp src/*/*/*.cpp)))

REGRESS = $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql))
REGRESS_OPTS = --inputdir=test

EXTRA_CLEAN = build $(OBJS:.o=.o.d)

.DEFAULT_GOAL = all

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
NL_CFLAGS := $(shell pkg-config --cflags libnl-3.0 2>/dev/null)
NL_LIBS := $(shell pkg-config --libs libnl-3.0 2>/dev/null)
WARNINGS = -Wall -Wextra $(if $(WERROR),-Werror)

ifneq ($(PGXS),)

# The library knows its version: keepalive_check() compares it with the extension's.
EXTENSION_VERSION := $(shell sed -nE "s/^default_version = '(.*)'/\1/p" $(EXTENSION).control)
# -isystem: the warnings below are for our code, not for others' headers.
PG_CPPFLAGS := -DKEEPALIVE_GUARD_VERSION='"$(EXTENSION_VERSION)"' \
	-Isrc -isystem $(shell $(PG_CONFIG) --includedir-server) \
	$(NL_CFLAGS:-I%=-isystem %)
PG_CXXFLAGS += -std=c++17 $(WARNINGS) -fvisibility=hidden
ifneq ($(findstring clang,$(CXX)),)
# The flags that PGXS has recorded are those of Debian's g++.
PG_CXXFLAGS += -Wno-unknown-warning-option
endif
SHLIB_LINK = $(NL_LIBS)
# No bitcode: none of our functions gains from being inlined into a query.
override with_llvm = no

include $(PGXS)

# PGXS links with the C compiler.
override COMPILER = $(CXX) $(CXXFLAGS)

# Debian's PGXS tracks no headers.
$(OBJS): %.o: %.cpp
	$(COMPILE.cc) -MMD -MP -MF $@.d -o $@ $<
src/keepalive_guard.o src/pg/functions/condition.o: $(EXTENSION).control
-include $(OBJS:.o=.o.d)

include test/unit/unit.mk test/fuzz/fuzz.mk test/lint/lint.mk test/mutate/mutate.mk

ifeq ($(NL_LIBS),)
$(OBJS) unit: libnl
.PHONY: libnl
libnl:
	@echo "pkg-config or libnl-3 is missing: run test/setup, or set NL_CFLAGS and NL_LIBS" >&2
	@exit 1
endif

else
all install installcheck unit clean:
	@echo "$(PG_CONFIG) is missing: run test/setup, or set PG_CONFIG" >&2; exit 1
endif

# Whoever kills make, in whatever way, has killed all of it.
test demo bench lint:
	@exec setpriv --pdeathsig KILL test/run $@

fuzz:
	@exec setpriv --pdeathsig KILL test/run $@ $(if $(RUNS),RUNS=$(RUNS))

mutate:
	@exec setpriv --pdeathsig KILL test/run $@ $(FILES) \
		$(foreach name,SAMPLE PG_SAMPLE SEED,$(if $($(name)),$(name)=$($(name))))

soak:
	@exec setpriv --pdeathsig KILL test/run $@ $(if $(MINUTES),MINUTES=$(MINUTES))

test-clients test-core test-monitoring test-report test-sanitized test-storm:
	@exec setpriv --pdeathsig KILL test/run $(@:test-%=%)

format:
	@test/lint/format

deb dist image-layout:
	@packaging/$@

test-packages:
	@test/packages/run

test-matrix:
	@exec setpriv --pdeathsig KILL test/matrix $(VERSIONS)

.PHONY: test demo bench unit lint fuzz mutate soak format deb dist image-layout test-packages test-core \
	test-monitoring test-report test-clients test-matrix test-sanitized \
	test-storm
