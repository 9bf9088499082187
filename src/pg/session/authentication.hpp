// Where the guard meets a new connection.
#pragma once

namespace guard::pg
{

void install_authentication_hook();

} // namespace guard::pg
