# GoogleTest for src/model and src/kernel, without a server, as it is and with
# the sanitizers: build/unit/run, build/sanitized/run.

UNIT_SOURCES = $(wildcard src/model/*.cpp src/kernel/*.cpp test/unit/*.cpp)
UNIT_CXXFLAGS = -std=c++17 -O1 -g $(WARNINGS)
UNIT_PROGRAMS = build/unit/run build/sanitized/run

build/sanitized/%: UNIT_CXXFLAGS += -fsanitize=address,undefined \
	-fno-sanitize-recover=all -fno-omit-frame-pointer

define unit_rules
build/$(1)/%.o: %.cpp
	@mkdir -p $$(@D)
	$$(CXX) $$(UNIT_CXXFLAGS) -Isrc $$(NL_CFLAGS:-I%=-isystem %) -MMD -MP -c -o $$@ $$<
build/$(1)/run: $(UNIT_SOURCES:%.cpp=build/$(1)/%.o)
	$$(CXX) $$(UNIT_CXXFLAGS) -o $$@ $$^ -lgtest_main -lgtest $$(NL_LIBS) -pthread
-include $(UNIT_SOURCES:%.cpp=build/$(1)/%.d)
endef
$(foreach variant,unit sanitized,$(eval $(call unit_rules,$(variant))))

unit: WERROR = 1
unit: $(UNIT_PROGRAMS)
	build/unit/run
	build/sanitized/run

# What the model says, for test/t/400_detection.pl.
build/predict: test/lab/predict.cpp src/kernel/socket.cpp $(wildcard src/model/*.cpp src/model/*.hpp src/kernel/*.hpp)
	@mkdir -p $(@D)
	$(CXX) $(UNIT_CXXFLAGS) -Isrc -o $@ $(filter %.cpp,$^)
