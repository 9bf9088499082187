// Bringing every connected session up to date with the compiled policies.
#pragma once

namespace guard::pg
{

// Matches every session anew, and signals those for which something changed, or all
// of them.  In the worker only: nobody else may write what sessions should have.
void distribute_policies(bool to_all);

} // namespace guard::pg
