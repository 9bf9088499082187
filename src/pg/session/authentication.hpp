// The authentication hook, in which a session of the guard begins.
#pragma once

namespace guard::pg
{

void install_authentication_hook();

} // namespace guard::pg
