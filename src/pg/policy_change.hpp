// Noticing that the policies may have changed, and telling the worker once the
// change is committed.
#pragma once

namespace guard::pg
{

// Has the current transaction, which has edited keepalive_policy, request an
// update when it commits.
void policies_edited_here();

// Watches for extensions and databases being created, dropped and altered.
void watch_objects();

} // namespace guard::pg
