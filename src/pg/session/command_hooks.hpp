// What a command needs: PostgreSQL's settings follow a change of policies at the
// session's next command, and commands change which policies match.
#pragma once

namespace guard::pg
{

void install_command_hooks();

} // namespace guard::pg
