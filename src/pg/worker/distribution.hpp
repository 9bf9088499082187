// Bringing every connected session up to date with the compiled policies.
#pragma once

namespace guard::pg
{

// Starts to match every session anew, and to signal those for which something changed,
// or all of them.  In the worker only: nobody else may write what sessions should have.
void begin_distribution(bool to_all);

// Goes on with it for a moment.  Returns whether all sessions are done.
bool continue_distribution();

} // namespace guard::pg
