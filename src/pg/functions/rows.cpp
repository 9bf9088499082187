#include "pg/postgres.hpp"

#include "pg/functions/rows.hpp"

namespace guard::pg
{

ReturnSetInfo *begin_rows(FunctionCallInfo fcinfo, List<Column> columns,
                          List<Argument> arguments)
{
	check_definition(fcinfo, columns, true, arguments);
	InitMaterializedSRF(fcinfo, 0);
	return reinterpret_cast<ReturnSetInfo *>(fcinfo->resultinfo);
}

TupleDesc begin_composite(FunctionCallInfo fcinfo, List<Column> columns,
                          List<Argument> arguments)
{
	return BlessTupleDesc(check_definition(fcinfo, columns, false, arguments));
}

void raise_wrong_value_count()
{
	elog(ERROR, "wrong number of values for a row");
	pg_unreachable();
}

} // namespace guard::pg
