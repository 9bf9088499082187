// libFuzzer in a backend, so that fuzzers call PostgreSQL's own functions:
//
//     keepalive_guard_fuzz(target text, log text, arguments text[])
//
// does not return: libFuzzer ends the process.  The library has all of the extension in
// it, and is preloaded in its place.
#include "target.hpp"

#include <csignal>
#include <cstdio>

#include <fcntl.h>
#include <sys/time.h>
#include <unistd.h>

extern "C"
{
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

	PG_FUNCTION_INFO_V1(keepalive_guard_fuzz);
	int LLVMFuzzerRunDriver(int *argc, char ***argv,
	                        int (*run)(const std::uint8_t *data, std::size_t size));
}

namespace guard::pg::fuzz
{

extern const Target row_target;
extern const Target regex_target;
extern const Target address_target;
extern const Target text_target;
extern const Target planted_target;
extern const Target update_target;
extern const Target ending_target;
extern const Target reading_target;

namespace
{

constexpr const Target *targets[] = {
	&row_target,     &regex_target,  &address_target, &text_target,
	&planted_target, &update_target, &ending_target,  &reading_target,
};

// An input that takes so much CPU time is a finding.
constexpr int most_seconds = 10;

const Target *target = nullptr;
MemoryContext input_context = nullptr;
volatile std::uint64_t executions = 0;

// libFuzzer's own timer is PostgreSQL's.
void on_cpu_timer(int)
{
	static std::uint64_t before = 0;
	if (executions == before)
		abort();
	before = executions;
}

void start_cpu_timer()
{
	signal(SIGVTALRM, on_cpu_timer);
	const itimerval interval = {{most_seconds, 0}, {most_seconds, 0}};
	setitimer(ITIMER_VIRTUAL, &interval, nullptr);
}

// In a subtransaction, which cleans up after an error.
int run_one(const std::uint8_t *data, std::size_t size)
{
	executions = executions + 1;
	ResourceOwner owner = CurrentResourceOwner;
	BeginInternalSubTransaction(nullptr);
	MemoryContextSwitchTo(input_context);
	PG_TRY();
	{
		Input input(data, size);
		target->run(input);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(input_context);
		const ErrorData *error = CopyErrorData();
		if (!target->may_raise)
		{
			fprintf(stderr, "ERROR: %s\n", error->message);
			abort();
		}
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	MemoryContextReset(input_context);
	return 0;
}

// What libFuzzer keeps outlives the transaction.
char **arguments_of(ArrayType *array, int *count)
{
	Datum *elements;
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, nullptr, count);
	auto **arguments = static_cast<char **>(palloc((*count + 2) * sizeof(char *)));
	arguments[0] = pstrdup("fuzz");
	for (int i = 0; i < *count; i++)
		arguments[i + 1] = TextDatumGetCString(elements[i]);
	arguments[++*count] = nullptr;
	return arguments;
}

} // namespace
} // namespace guard::pg::fuzz

extern "C" PGDLLEXPORT Datum keepalive_guard_fuzz(PG_FUNCTION_ARGS)
{
	using namespace guard::pg::fuzz;

	MemoryContextSwitchTo(TopMemoryContext);
	const char *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	for (const Target *each : targets)
		if (strcmp(each->name, name) == 0)
			target = each;
	if (target == nullptr)
		elog(ERROR, "there is no fuzzer \"%s\"", name);
	const char *log = text_to_cstring(PG_GETARG_TEXT_PP(1));
	const int file = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (file < 0)
		elog(ERROR, "could not open \"%s\": %m", log);
	dup2(file, STDERR_FILENO);
	int count;
	char **arguments = arguments_of(PG_GETARG_ARRAYTYPE_P(2), &count);
	target->begin();
	input_context =
		AllocSetContextCreate(TopMemoryContext, "fuzzing input", ALLOCSET_DEFAULT_SIZES);
	start_cpu_timer();
	LLVMFuzzerRunDriver(&count, &arguments, run_one);
	PG_RETURN_VOID();
}
