// This backend's slot in shared memory: what it shows of this session, and keeping the
// update signal away while it is written.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared/slots.hpp"

#include <csignal>

namespace guard::pg
{

// This backend's slot; nullptr in every process that is not a client backend which
// went through begin_session().
extern Slot *my_slot;

// What my_slot shows of this session.
extern Session own_session;

bool own_is_tcp();

// Compares what is in force with `wanted` and with what is expected to be in force, and
// publishes that.  `overrides`: bits of Session::overridden to set in any case.
// Async-signal-safe.
void publish_own(const Wanted &wanted, const SettingValues &expected,
                 std::uint8_t overrides, std::int32_t client_check);

// Has the worker send the update signal again.  Async-signal-safe.
void request_resignal();

// Block and unblock the update signal.  Calls cannot be nested.
void hold_updates();
void release_updates();

// Whether synchronize_settings() (session.hpp) has something to do.
extern volatile sig_atomic_t synchronization_needed;

} // namespace guard::pg
