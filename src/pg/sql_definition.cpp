#include "pg/postgres.hpp"

#include "pg/sql_definition.hpp"

extern "C"
{
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
}

namespace guard::pg
{
namespace
{

[[noreturn]] void raise_mismatch(FunctionCallInfo fcinfo, const char *detail)
{
	ereport(ERROR,
	        (errcode(ERRCODE_DATATYPE_MISMATCH),
	         errmsg("SQL definition of function %s does not match the loaded library",
	                format_procedure(fcinfo->flinfo->fn_oid)),
	         errdetail_internal("%s", detail), errhint_version_mismatch()));
	pg_unreachable();
}

void check_arguments(FunctionCallInfo fcinfo, List<Argument> expected)
{
	Oid *types;
	int count;
	get_func_signature(fcinfo->flinfo->fn_oid, &types, &count);
	if (count != expected.count || fcinfo->nargs != expected.count)
		raise_mismatch(fcinfo,
		               psprintf("Number of arguments is %d; the library expects %d.",
		                        count, expected.count));
	for (int i = 0; i < count; i++)
		if (types[i] != expected.items[i].type)
			raise_mismatch(fcinfo,
			               psprintf("Argument %d is of type %s; the library expects %s.",
			                        i + 1, format_type_be(types[i]),
			                        format_type_be(expected.items[i].type)));

	// STRICT is part of the SQL definition, so NULL is possible.
	for (int i = 0; i < count; i++)
		if (fcinfo->args[i].isnull && !expected.items[i].nullable)
			ereport(ERROR,
			        (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			         errmsg("argument \"%s\" must not be null", expected.items[i].name)));
}

TupleDesc check_columns(FunctionCallInfo fcinfo, List<Column> expected, bool set)
{
	if (fcinfo->flinfo->fn_retset != set)
		raise_mismatch(fcinfo, set ? "The library returns a set of rows."
		                           : "The library returns a single row.");

	TupleDesc descriptor;
	if (get_call_result_type(fcinfo, nullptr, &descriptor) != TYPEFUNC_COMPOSITE)
		raise_mismatch(fcinfo,
		               psprintf("The library returns rows with %d columns; the columns "
		                        "must be declared.",
		                        expected.count));
	if (descriptor->natts != expected.count)
		raise_mismatch(fcinfo,
		               psprintf("Number of columns is %d; the library returns %d.",
		                        descriptor->natts, expected.count));
	for (int i = 0; i < expected.count; i++)
	{
		const FormData_pg_attribute *declared = TupleDescAttr(descriptor, i);
		const Column &column = expected.items[i];
		if (declared->atttypid != column.type ||
		    strcmp(NameStr(declared->attname), column.name) != 0)
			raise_mismatch(fcinfo,
			               psprintf("Column %d is \"%s\" of type %s; the library returns "
			                        "\"%s\" of type %s.",
			                        i + 1, NameStr(declared->attname),
			                        format_type_be(declared->atttypid), column.name,
			                        format_type_be(column.type)));
	}
	return descriptor;
}

} // namespace

TupleDesc check_definition(FunctionCallInfo fcinfo, List<Column> columns, bool set,
                           List<Argument> arguments)
{
	TupleDesc descriptor = check_columns(fcinfo, columns, set);
	check_arguments(fcinfo, arguments);
	return descriptor;
}

void check_definition(FunctionCallInfo fcinfo, Oid returns, List<Argument> arguments)
{
	Oid declared = get_func_rettype(fcinfo->flinfo->fn_oid);
	bool set = fcinfo->flinfo->fn_retset;
	if (declared != returns || set)
		raise_mismatch(fcinfo, psprintf("Return type is %s%s; the library returns %s.",
		                                set ? "a set of " : "", format_type_be(declared),
		                                format_type_be(returns)));
	check_arguments(fcinfo, arguments);
}

int errhint_version_mismatch()
{
	return errhint(
		"If the package was updated after the server had been started, restart "
		"the server.  Then use ALTER EXTENSION keepalive_guard UPDATE.");
}

} // namespace guard::pg
