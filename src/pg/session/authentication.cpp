#include "pg/postgres.hpp"

#include "pg/session/authentication.hpp"

#include "pg/session/session.hpp"
#include "pg/shared/state.hpp"

extern "C"
{
#include "libpq/auth.h"
}

namespace guard::pg
{
namespace
{

ClientAuthentication_hook_type previous_hook = nullptr;

void on_authentication(Port *port, int status)
{
	if (previous_hook)
		previous_hook(port, status);
	if (status == STATUS_OK && shared != nullptr)
		begin_session(port);
}

} // namespace

void install_authentication_hook()
{
	previous_hook = ClientAuthentication_hook;
	ClientAuthentication_hook = on_authentication;
}

} // namespace guard::pg
