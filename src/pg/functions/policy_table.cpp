#include "pg/postgres.hpp"

#include "pg/functions/policy_table.hpp"

extern "C"
{
#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
}

namespace guard::pg
{

const char *policy_table_name(Oid function)
{
	constexpr const char *table = "keepalive_policy";
	Oid schema = get_func_namespace(function);
	Oid oid = get_relname_relid(table, schema);
	if (OidIsValid(oid) && RelationIsVisible(oid))
		return table;
	return quote_qualified_identifier(get_namespace_name(schema), table);
}

} // namespace guard::pg
