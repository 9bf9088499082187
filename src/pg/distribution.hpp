// Bringing every connected session up to date with the compiled policies.
#pragma once

namespace guard::pg
{

// Matches every session anew, and signals those for which something changed.  In
// the worker only: nobody else may write what sessions should have.
void distribute_policies();

} // namespace guard::pg
