// Bringing every connected session up to date with the compiled policies.
#pragma once

namespace guard::pg
{

// Starts to match every session anew, and to signal those for which something changed,
// or all of them.  In the worker only: nobody else may write what sessions should have.
void begin_distribution(bool to_all);

// Goes on with it for a moment.  Returns whether all sessions are done.
bool continue_distribution();

// Tries again the sessions whose slots could not be read, if it is time to.  Returns how
// long to wait until the next call, in ms; -1: there are none.
long retry_overdue_slots();

} // namespace guard::pg
