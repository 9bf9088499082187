# GoogleTest for src/model and src/kernel, without a server: build/unit/run.  Built with
# the sanitizers; SANITIZE= builds it without them.

UNIT_SOURCES = $(wildcard src/model/*.cpp src/kernel/*.cpp test/unit/*.cpp)
UNIT_CXXFLAGS = -std=c++17 -O1 -g $(WARNINGS)
SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

build/unit/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(UNIT_CXXFLAGS) $(SANITIZE) -Isrc $(NL_CFLAGS:-I%=-isystem %) -MMD -MP -c -o $@ $<
build/unit/run: $(UNIT_SOURCES:%.cpp=build/unit/%.o)
	$(CXX) $(UNIT_CXXFLAGS) $(SANITIZE) -o $@ $^ -lgtest_main -lgtest $(NL_LIBS) -pthread
-include $(UNIT_SOURCES:%.cpp=build/unit/%.d)

unit: WERROR = 1
unit: build/unit/run
	build/unit/run

# What the model says, for test/t/400_detection.pl.
build/predict: test/lab/predict.cpp src/kernel/socket.cpp $(wildcard src/model/*.cpp src/model/*.hpp src/kernel/*.hpp)
	@mkdir -p $(@D)
	$(CXX) $(UNIT_CXXFLAGS) -Isrc -o $@ $(filter %.cpp,$^)
