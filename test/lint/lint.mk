# For test/lint/run, which says what CLANG_TIDY is.

# Each source once until it, or what it includes, has changed.  The checks of
# clang-analyzer take four fifths of the time: TIDY=quick leaves them out.
TIDY = full
TIDY_quick = --checks=-clang-analyzer-*
TIDIED = $(patsubst src/%.o,build/tidy/$(TIDY)/%,$(OBJS))
build/tidy/$(TIDY)/%: src/%.cpp src/%.o .clang-tidy
	@mkdir -p $(@D)
	@$(CLANG_TIDY) --quiet $(TIDY_$(TIDY)) $< -- -std=c++17 -Wall -Wextra $(CPPFLAGS)
	@touch $@
clang-tidy: $(TIDIED)

lint-objects: $(OBJS)
	@test/lint/objects $(OBJS)

# What test/lint/planted.pl has written, built as the extension is.
build/planted/%.o: build/planted/%.cpp
	$(COMPILE.cc) -I$(firstword $(subst /src/,/src ,$@)) -o $@ $<

.PHONY: clang-tidy lint-objects
