# libFuzzer: test/fuzz/NAME.cpp becomes build/fuzz/NAME, which test/fuzz/run runs.  Formats
# that are hard to guess have a corpus (test/fuzz/corpus/NAME).
FUZZERS = $(patsubst test/fuzz/%.cpp,build/fuzz/%,$(wildcard test/fuzz/*.cpp))
FUZZ_CXX = clang++ -std=c++17 -O1 -g $(WARNINGS) -fno-sanitize-recover=all -Isrc
FUZZ_SOURCES = $(wildcard src/model/*.cpp) $(addprefix src/kernel/,\
	inet_diag.cpp proc_net.cpp socket.cpp tcp_info.cpp)

build/fuzz/src/%.o: src/%.cpp
	@mkdir -p $(@D)
	$(FUZZ_CXX) -fsanitize=fuzzer-no-link,address,undefined $(NL_CFLAGS:-I%=-isystem %) -MMD -MP -c -o $@ $<
build/fuzz/%: test/fuzz/%.cpp $(wildcard test/fuzz/*.hpp) $(FUZZ_SOURCES:%.cpp=build/fuzz/%.o)
	$(FUZZ_CXX) -fsanitize=fuzzer,address,undefined $(NL_CFLAGS:-I%=-isystem %) -o $@ $(filter %.cpp %.o,$^) $(NL_LIBS)
-include $(FUZZ_SOURCES:%.cpp=build/fuzz/%.d)
.SECONDARY: $(FUZZ_SOURCES:%.cpp=build/fuzz/%.o)
fuzzers: $(FUZZERS)
.PHONY: fuzzers
