# keepalive_guard: `make demo` shows it, `make test` runs every test, `make bench`
# measures; each installs what it needs (test/setup).  `make && make install`
# builds with PGXS against the pg_config in PATH (or PG_CONFIG=...).

MODULE_big = keepalive_guard
EXTENSION = keepalive_guard
DATA = sql/keepalive_guard--1.0.sql
OBJS = $(patsubst %.cpp,%.o,$(wildcard src/*.cpp src/*/*.cpp))

REGRESS = $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql))
REGRESS_OPTS = --inputdir=test

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

# -isystem: the warnings below are for our code, not for PostgreSQL's headers.
PG_CPPFLAGS = -Isrc -isystem $(shell $(PG_CONFIG) --includedir-server) \
	$(shell pkg-config --cflags libnl-3.0) -DPACKAGE_FLAGS
PG_CXXFLAGS = -std=c++17 -Wall -Wextra -Werror -fvisibility=hidden
SHLIB_LINK = $(shell pkg-config --libs libnl-3.0)

EXTRA_CLEAN = build

include $(PGXS)
