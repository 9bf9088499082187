# libFuzzer: test/fuzz/NAME.cpp becomes build/fuzz/NAME, which test/fuzz/run runs.  Formats
# that are hard to guess have a corpus (test/fuzz/corpus/NAME).
FUZZERS = $(patsubst test/fuzz/%.cpp,build/fuzz/%,$(wildcard test/fuzz/*.cpp))
FUZZ_CXX = clang++ -std=c++17 -O1 -g $(WARNINGS) -fno-sanitize-recover=all -Isrc
FUZZ_SOURCES = $(wildcard src/model/*.cpp) $(addprefix src/kernel/,\
	inet_diag.cpp proc_net.cpp socket.cpp tcp_info.cpp)

# Half the time of a plan would go into telling libFuzzer about comparisons of numbers.
build/fuzz/src/model/%.o: FUZZ_CXX += -fno-sanitize-coverage=trace-cmp
build/fuzz/src/%.o: src/%.cpp
	@mkdir -p $(@D)
	$(FUZZ_CXX) -fsanitize=fuzzer-no-link,address,undefined $(NL_CFLAGS:-I%=-isystem %) -MMD -MP -c -o $@ $<
build/fuzz/%: test/fuzz/%.cpp $(wildcard test/fuzz/*.hpp) $(FUZZ_SOURCES:%.cpp=build/fuzz/%.o)
	$(FUZZ_CXX) -fsanitize=fuzzer,address,undefined $(NL_CFLAGS:-I%=-isystem %) -o $@ $(filter %.cpp %.o,$^) $(NL_LIBS)
-include $(FUZZ_SOURCES:%.cpp=build/fuzz/%.d)

# diag_reply without one of the bounds of its reader.
build/fuzz/planted_kernel.cpp: src/kernel/inet_diag.cpp test/fuzz/fuzz.mk
	@mkdir -p $(@D)
	sed 's|std::min(\(length / sizeof(std::uint32_t)\), facts.memory.size())|\1|' $< >$@
	! cmp -s $< $@
build/fuzz/planted_kernel: build/fuzz/planted_kernel.cpp test/fuzz/diag_reply.cpp \
		$(filter-out %/inet_diag.o,$(FUZZ_SOURCES:%.cpp=build/fuzz/%.o))
	$(FUZZ_CXX) -fsanitize=fuzzer,address,undefined $(NL_CFLAGS:-I%=-isystem %) -o $@ $^ $(NL_LIBS)
.SECONDARY: $(FUZZ_SOURCES:%.cpp=build/fuzz/%.o)

# Those of test/fuzz/server run in a backend: one library with all of the extension,
# preloaded in its place.  INSTRUMENTED is what they are about.
INSTRUMENTED = $(wildcard src/model/*.cpp src/pg/*.cpp src/pg/policy/*.cpp src/pg/session/*.cpp \
	src/pg/shared/*.cpp) $(addprefix src/kernel/,socket.cpp socket_options.cpp tcp_info.cpp) \
	$(addprefix src/pg/functions/,datums.cpp events.cpp explain.cpp likely_mistakes.cpp \
	outcome.cpp policy_problems.cpp session_list.cpp session_state.cpp stats.cpp status.cpp \
	visible_policies.cpp)
# ending.cpp of the fuzzer has that of the session in it.
SERVER_FUZZ_SOURCES = $(filter-out src/pg/session/ending.cpp,$(INSTRUMENTED)) $(wildcard test/fuzz/server/*.cpp)
# -fwrapv and -fno-strict-aliasing: as the extension is built.  A bool and an enum of
# damaged shared memory may have any value.
SERVER_FUZZ_CXX = clang++ -std=c++17 -O1 -g $(WARNINGS) -fwrapv -fno-strict-aliasing -fPIC \
	-fvisibility=hidden -shared-libasan -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize=vptr,function,bool,enum -fno-sanitize-recover=all
FUZZ_DRIVER = $(shell clang --print-file-name=libclang_rt.fuzzer_no_main-$$(uname -m).a)

# -Bsymbolic: coverage is for libFuzzer, and not for the functions of the same names in
# AddressSanitizer's library, which is loaded first.
build/fuzz_server/%.o: %.cpp
	@mkdir -p $(@D)
	$(SERVER_FUZZ_CXX) $(CPPFLAGS) -MMD -MP -c -o $@ $<
build/fuzz_server/keepalive_guard.so: $(SERVER_FUZZ_SOURCES:%.cpp=build/fuzz_server/%.o) \
		$(filter-out $(INSTRUMENTED:.cpp=.o),$(OBJS))
	$(SERVER_FUZZ_CXX) -shared -Wl,-Bsymbolic -o $@ $^ $(FUZZ_DRIVER) $(SHLIB_LINK) -lstdc++
build/fuzz_server/no_catalogs.so: test/fuzz/server/no_catalogs.c
	@mkdir -p $(@D)
	$(CC) $(WARNINGS) -shared -fPIC -o $@ $<
-include $(SERVER_FUZZ_SOURCES:%.cpp=build/fuzz_server/%.d)

fuzzers: $(FUZZERS) build/fuzz/planted_kernel build/fuzz_server/keepalive_guard.so build/fuzz_server/no_catalogs.so
.PHONY: fuzzers
