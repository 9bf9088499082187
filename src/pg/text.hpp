// Strings of clients and of databases with another encoding than this one: roles,
// databases, policies, what clients say.  Shared memory has their bytes as they were.
#pragma once

#include "pg/postgres.hpp"

#include <climits>

namespace guard::pg
{

// The string as text that this database can store and this client can receive: what is
// not a character of both encodings becomes \xNN.  ASCII is returned as it is; anything
// else is palloc'd, needs a transaction, and ends after `limit` bytes at most.
const char *text_from_shared(const char *bytes, int limit = INT_MAX);

// The same for messages, which PostgreSQL converts to the client's encoding itself, and
// for the server log: what is not a character in this database's encoding becomes \xNN.
// `bytes` itself or palloc'd.
const char *text_for_log(const char *bytes);

// Copies a string into `room` bytes, and does not cut it within a character.
void copy_clipped(char *copy, const char *text, int room);

} // namespace guard::pg
