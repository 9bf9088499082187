# What test/mutate/run needs.  Mutants of src/kernel and src/model are shared libraries that
# are loaded before build/mutate/libsources.so, without which the unit tests are linked.
# They are compiled fast: with precompiled headers, and not optimized.
MUTATE_CXXFLAGS = -std=c++17 -w -Isrc $(NL_CFLAGS) -fPIC
MUTATE_HEADERS = build/mutate/headers.hpp
MUTATE_SOURCES = $(wildcard src/model/*.cpp src/kernel/*.cpp)
MUTATE_TESTS = $(wildcard test/unit/*.cpp)

build/mutate/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) -std=c++17 -O1 -w -Isrc $(NL_CFLAGS) $(PIC) -MMD -MP -c -o $@ $<
build/mutate/src/%.o: PIC = -fPIC
-include $(UNIT_SOURCES:%.cpp=build/mutate/%.d)
build/mutate/libsources.so: $(MUTATE_SOURCES:%.cpp=build/mutate/%.o)
	$(CXX) -shared -o $@ $^ $(NL_LIBS)
build/mutate/run: $(MUTATE_TESTS:%.cpp=build/mutate/%.o) build/mutate/libsources.so
	$(CXX) -o $@ $^ '-Wl,-rpath,$$ORIGIN' -lgtest_main -lgtest $(NL_LIBS) -pthread
$(MUTATE_HEADERS): $(MUTATE_SOURCES)
	@mkdir -p $(@D)
	grep -h '^#include <' $^ | sort -u >$@
$(MUTATE_HEADERS).gch: $(MUTATE_HEADERS)
	$(CXX) $(MUTATE_CXXFLAGS) -x c++-header -o $@ $<

# How a mutant is compiled, with the sanitizers too, and their library.  The tests, without
# the sanitizers, make objects whose types UndefinedBehaviorSanitizer does not know (vptr).
build/mutate/commands: Makefile test/unit/unit.mk test/mutate/mutate.mk
	@mkdir -p $(@D)
	@printf '%s\n' '$(CXX) $(MUTATE_CXXFLAGS) -include $(MUTATE_HEADERS)' \
		'$(CXX) $(MUTATE_CXXFLAGS) $(SANITIZE) -fno-sanitize=vptr' \
		"$$($(CXX) -print-file-name=libasan.so)" >$@

# The lab's copy of the checkout has no objects.  The extension's are packed, so that only
# the mutant's is made again.
build/mutate/objects.tar: $(OBJS)
	tar -c -f $@ $^ $(OBJS:.o=.o.d)

mutants: build/mutate/run build/mutate/commands $(MUTATE_HEADERS).gch build/mutate/objects.tar
.PHONY: mutants
