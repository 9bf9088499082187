# What test/mutate/run needs: the objects of the extension and of its unit tests, these
# without the sanitizers.  The lab's copy of the checkout has no objects, so they are packed.
build/mutate/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(MUTATE_CXXFLAGS) -MMD -MP -c -o $@ $<
-include $(UNIT_SOURCES:%.cpp=build/mutate/%.d)

MUTATE_CXXFLAGS = -std=c++17 -O1 -w -Isrc $(NL_CFLAGS)
MUTATE_OBJECTS = $(OBJS) $(UNIT_SOURCES:%.cpp=build/mutate/%.o)
build/mutate/objects.tar: $(MUTATE_OBJECTS)
	tar -c -f $@ $^ $(wildcard $(OBJS:.o=.o.d))

# How mutants are compiled, with the sanitizers too, and what they are linked with.
build/mutate/commands: Makefile test/unit/unit.mk test/mutate/mutate.mk
	@mkdir -p $(@D)
	@printf '%s\n' '$(CXX) $(MUTATE_CXXFLAGS)' \
		'$(CXX) $(MUTATE_CXXFLAGS) $(SANITIZE)' \
		'-lgtest_main -lgtest $(NL_LIBS) -pthread' >$@

mutants: build/mutate/objects.tar build/mutate/commands
.PHONY: mutants
