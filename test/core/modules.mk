# The libraries that PostgreSQL's regression tests load, built in test/core/compare.
MODULES = regress autoinc refint
override with_llvm = no
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)
