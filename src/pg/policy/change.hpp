// Noticing that the policies may have changed, and telling the worker once the
// change is committed.
#pragma once

namespace guard::pg
{

// Has the current transaction, which has edited keepalive_policy, request an
// update when it commits.
void policies_edited_here();

// The same after GRANT or REVOKE of a role, for which PostgreSQL has no object access
// hook.
void memberships_changed_here();

// Watches for extensions, databases and roles being created, dropped and altered.
void install_object_access_hook();

} // namespace guard::pg
