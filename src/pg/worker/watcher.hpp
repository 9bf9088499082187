// The watcher: ends backends by their policies' dead_after and stall_timeout.
#pragma once

namespace guard::pg
{

// Looks at the sockets of all sessions that have dead_after or stall_timeout, if it is
// time, and ends those whose time is up.  In the worker only.  Returns in how many ms to
// call again; -1: there is no such session, and the next one will wake the worker.
long watch_sessions();

} // namespace guard::pg
