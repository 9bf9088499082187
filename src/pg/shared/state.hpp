// What all processes of the server share: the compiled policies, one slot for
// each client backend, and the counters that tell the worker what there is to do.
#pragma once

#include "pg/postgres.hpp"

#include "pg/setting_records.hpp"
#include "pg/shared/slots.hpp"

extern "C"
{
#include "storage/lwlock.h"
}

namespace guard::pg
{

// How the last reading of the policy table ended.
enum class PolicyState : std::uint32_t
{
	not_read,      // the table has not been read yet
	no_database,   // keepalive_guard.database does not exist
	no_extension,  // ... has no extension keepalive_guard
	no_table,      // ... has the extension, but not its table under its name
	no_room,       // more policies than keepalive_guard.max_policies
	unreadable,    // the table does not have the expected columns
	reader_failed, // the policy reader ends before it has read the table
	compiled,
};

struct Shared
{
	// Guards policy_count, disabled_count, rules and policies.  Only starting sessions
	// and the workers take it: everybody else uses read_policies().
	LWLock *policy_lock;
	pg_atomic_uint64 policy_changes; // odd while they are being replaced
	pg_atomic_uint32 policy_state;   // PolicyState
	pg_atomic_uint64 generation;     // of the compiled policies; grows under policy_lock
	pg_atomic_uint64 changed_at;     // TimestampTz of the last such change; 0: none yet

	// Requests to read the policy table are numbered.  A stage is up to date if it has
	// the number of the last one.
	pg_atomic_uint64 requested;   // the table may have changed
	pg_atomic_uint64 edited;      // ... the last request after an edit or to apply
	pg_atomic_uint64 compiled;    // ... the table was read after that request
	pg_atomic_uint64 distributed; // ... and every slot was matched again

	pg_atomic_uint64 readings; // how often the policy reader has read the table

	pg_atomic_uint32 edits_unnoticed; // the table's trigger does not always fire
	pg_atomic_uint32 attention;       // some session's slot is to be looked at again
	pg_atomic_uint32 enabled;         // keepalive_guard.enabled as the worker has it

	pg_atomic_uint32 worker;     // proc number + 1, 0: not running
	pg_atomic_uint32 reader;     // likewise
	pg_atomic_uint32 recovering; // the server was in recovery when last looked at
	pg_atomic_uint32 watching;   // the worker looks at sockets every watch_interval
	Versioned<ConfiguredValues> configured;
	std::uint32_t policies_found; // at the last reading, with those that are disabled
	std::uint32_t rows_skipped;   // invalid rows at the last reading
	std::uint32_t problems;       // PolicyList::problems that were logged last

	std::uint32_t policy_count;   // those that are matched
	std::uint32_t disabled_count; // those after them
	std::uint32_t policy_room;
	std::uint32_t slot_count;
};

extern Shared *shared; // nullptr: not preloaded

Rule *shared_rules();
Policy *shared_policies();
Slot *shared_slots();

inline void bound(Policy &policy)
{
	bound_text(policy.name);
	bound_text(policy.database);
	bound_text(policy.role);
}

// Room for all of it, with max_policies and MaxBackends as they are; called while
// shared memory is set up (setup.cpp).
Size state_size();
void init_state(LWLock *policy_lock);

// Replaces the compiled policies if these differ, as read in answer to request number
// `request`, and wakes the worker.  `rules` and `policies` are in match order, the first
// `enabled` ones of them enabled.
void publish_policies(const Rule *rules, const Policy *policies, std::uint32_t enabled,
                      std::uint32_t count, PolicyState state, std::uint64_t request);

// Calls copy(enabled, count) to copy what it needs from shared_rules() and
// shared_policies(), the first `enabled` of which are enabled; again if they were
// replaced meanwhile.  Takes no lock: readers in a loop would keep the policies from
// being replaced.
template <typename Copy> void read_policies(Copy copy)
{
	while (true)
	{
		const uint64 before = pg_atomic_read_u64(&shared->policy_changes);
		pg_read_barrier();
		if ((before & 1) == 0)
		{
			const std::uint32_t room = shared->policy_room;
			const std::uint32_t enabled = Min(shared->policy_count, room);
			copy(enabled, enabled + Min(shared->disabled_count, room - enabled));
			pg_read_barrier();
			if (pg_atomic_read_u64(&shared->policy_changes) == before)
				return;
		}
		CHECK_FOR_INTERRUPTS();
		pg_usleep(1000);
	}
}

// Notes that the policies could not be replaced, and why; those in force stay.
void keep_policies(PolicyState state, std::uint64_t request);

// A sentence for messages: what is in force while the table cannot be read.
const char *policies_still_in_force();

// Numbers a new request to read the policies and to match every session again, and
// wakes the worker.  Returns the number.  Until it is done, sessions count as pending.
// Does nothing that can fail.
std::uint64_t request_update();

// The same for a table that may have changed: no session counts as pending, and sessions
// are matched again only if the policies differ.
void request_reading();

// Whether every slot wants what was committed before.  To be asked before a slot is
// read: asked later, it may be true of a change that came after the copy.
bool policies_distributed();

// Has the worker match all sessions again.  Does nothing that can fail.
void call_for_attention();

// Wakes the worker and the policy reader, whichever run.
void wake_workers();

} // namespace guard::pg
