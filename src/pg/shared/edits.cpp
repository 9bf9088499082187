#include "pg/postgres.hpp"

#include "pg/shared/edits.hpp"

#include "pg/settings.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "storage/shmem.h"
#include "storage/spin.h"
}

namespace guard::pg
{
namespace
{

constexpr std::uint32_t most_edits = 128;

struct Edits
{
	slock_t lock;
	std::uint32_t first;
	std::uint32_t count;
	Edit edit[most_edits]; // a ring
};
Edits *edits = nullptr;

// False if there is no room.
bool append(const Edit &edit)
{
	SpinLockAcquire(&edits->lock);
	const bool has_room = edits->count < most_edits;
	if (has_room)
		edits->edit[(edits->first + edits->count++) % most_edits] = edit;
	SpinLockRelease(&edits->lock);
	return has_room;
}

// The first one, if its request is not after `last_request`.
bool take(Edit *edit, std::uint64_t last_request)
{
	SpinLockAcquire(&edits->lock);
	const bool taken =
		edits->count > 0 && edits->edit[edits->first].request <= last_request;
	if (taken)
	{
		*edit = edits->edit[edits->first];
		edits->first = (edits->first + 1) % most_edits;
		edits->count--;
	}
	SpinLockRelease(&edits->lock);
	return taken;
}

// A name in quotes; what could be taken for the end of the name or of the line escaped.
struct QuotedName
{
	char text[4 * name_bytes + 3];
};

QuotedName quoted(const char *name)
{
	QuotedName result;
	char *to = result.text;
	*to++ = '"';
	for (; *name != '\0'; name++)
	{
		const auto byte = static_cast<unsigned char>(*name);
		if (byte < ' ' || byte == 0x7f)
			to += snprintf(to, 5, "\\x%02x", byte);
		else
		{
			if (byte == '"')
				*to++ = '"';
			*to++ = *name;
		}
	}
	*to++ = '"';
	*to = '\0';
	return result;
}

struct Outcome
{
	char text[80];
};

Outcome outcome(bool is_compiled)
{
	Outcome result;
	const auto state =
		static_cast<PolicyState>(pg_atomic_read_u32(&shared->policy_state));
	if (!is_compiled)
		strlcpy(result.text, "they are not in force yet", sizeof(result.text));
	else if (state != PolicyState::compiled)
		strlcpy(result.text, "they could not be put in force", sizeof(result.text));
	else if (pg_atomic_read_u32(&shared->enabled) == 0)
		strlcpy(result.text, "keepalive_guard.enabled is off", sizeof(result.text));
	else
		snprintf(result.text, sizeof(result.text), "policies in force: %u",
		         shared->policy_count);
	return result;
}

void write_line(const Edit &edit, bool is_compiled)
{
	const RowCounts &rows = edit.rows;
	ereport(LOG,
	        (errmsg("keepalive_guard: %s %s edited policies in database %s: "
	                "%lld rows inserted, %lld updated, %lld deleted, "
	                "%lld truncated; %s",
	                edit.is_replicated ? "subscription of role" : "role",
	                quoted(edit.role).text, quoted(policy_database).text,
	                static_cast<long long>(rows.inserted),
	                static_cast<long long>(rows.updated),
	                static_cast<long long>(rows.deleted),
	                static_cast<long long>(rows.truncated), outcome(is_compiled).text)));
}

} // namespace

Size edits_size()
{
	return sizeof(Edits);
}

void init_edits()
{
	bool found;
	edits = static_cast<Edits *>(
		ShmemInitStruct("keepalive_guard edits", edits_size(), &found));
	if (found)
		return;
	memset(static_cast<void *>(edits), 0, edits_size());
	SpinLockInit(&edits->lock);
}

void log_edit(const Edit &edit)
{
	if (!append(edit))
		write_line(edit, false);
	wake_workers();
	pg_memory_barrier();
	if (pg_atomic_read_u32(&shared->worker) == 0)
		log_remaining_edits();
}

void log_compiled_edits()
{
	Edit edit;
	while (take(&edit, pg_atomic_read_u64(&shared->compiled)))
		write_line(edit, true);
}

void log_remaining_edits()
{
	Edit edit;
	while (take(&edit, PG_UINT64_MAX))
		write_line(edit, false);
}

} // namespace guard::pg
