// PostgreSQL's settings follow a live update at the session's next command.
#pragma once

namespace guard::pg
{

void install_command_hooks();

} // namespace guard::pg
