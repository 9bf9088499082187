// Noticing that policies, or what decides which of them match, may have changed, and
// telling the worker once the change is committed.
#pragma once

#include "pg/postgres.hpp"

#include "pg/shared/edits.hpp"

namespace guard::pg
{

// Whether this process is connected to keepalive_guard.database.
bool in_policy_database();

// Whether that is the extension's own table, whatever its name.
bool is_policy_table(Oid relation);

// The current transaction edits keepalive_policy, and has changed that many rows.
void policies_edited_here(const RowCounts &rows);
bool has_edited_policies_here();

// It may have changed which roles there are, their names or memberships.  PostgreSQL has
// no object access hook for GRANT and REVOKE.
void roles_changed_here();

// It commits a prepared transaction, which may have changed anything.
void prepared_transaction_committed_here();

// Has extensions and databases that are created, dropped and altered noticed, and
// altered tables of this extension.
void install_object_access_hook();

} // namespace guard::pg
