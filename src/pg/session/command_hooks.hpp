// PostgreSQL's settings follow a live update at the session's next command; and a command
// may change who is in a group.
#pragma once

namespace guard::pg
{

void install_command_hooks();

} // namespace guard::pg
